import pytest

from experiments_manager.settings import SettingsError, load_settings


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("quantization_aware_training = True", "quantization_aware_training", "converted to TensorFlow Lite"),
        ("gradient_clip_norm = 1.0; gradient_clip_value = 1.0", "gradient_clip_value", "`gradient_clip_norm` is given"),
        ("kafka_topics = {'training': 'x'}", "kafka_topics", "Expected train, validation, test, got 'training'"),
        ("kafka_topics = {'train': 'a b'}", "kafka_topics", "invalid topic of the train split"),
        ("kafka_start = 'yesterday'", "kafka_start", "Expected 'earliest', 'latest', or a time"),
        ("kafka_max_bad = 2", "kafka_max_bad", "up to 1"),
        ("kafka_options = {'sasl.password': 'hush'}", "kafka_options", "'${KAFKA_PASSWORD}'"),
        (
            "consume_data_from_kafka = True; kafka_mode = 'live'",
            "steps_per_epoch",
            "the number of batches of an epoch, since a live topic never ends",
        ),
        ("class_names = []", "class_names", "it is empty"),
        ("input_names = ['a', 'a']", "input_names", "duplicate name 'a'"),
        ("served_head_names = ['a', 'a']", "served_head_names", "duplicate name 'a'"),
        ("session_name = 'a/b'", "session_name", "Expected no slash, backslash or colon"),
        ("monitor = ''", "monitor", "it is empty"),
        ("min_learning_rate = 0.5", "min_learning_rate", "Expected less than 0.1, got 0.5."),
        ("grpc_port = 8501", "rest_port", "`grpc_port` is 8501, too"),
        ("gpus = [0, 0]", "gpus", "duplicate index"),
        ("hparams = {'loss': object()}", "hparams", "the entry 'loss' is not a plain value"),
        ("hparams = {'a': {'b': {1: 2}}}", "hparams", "the entry 'a' is not a plain value"),
        ("hparams = {3: 1}", "hparams", "Expected dict with str keys"),
        ("optimizer = 3", "optimizer", "Expected the name of a Keras optimizer, or an optimizer, got 3."),
        ("callbacks = 'x'", "callbacks", "Expected a list or dict of Keras callbacks"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(write, text, name, says):
    with pytest.raises(SettingsError) as caught:
        load_settings(write(text + "\n"))
    (problem,) = caught.value.problems
    assert problem.name == name
    assert says in problem.text


@pytest.mark.parametrize("rate", ["0", "-0.1", "'fast'", "True"])
def test_a_learning_rate_is_a_positive_number_or_a_schedule(write, rate):
    text = f"loss = 'mse'\nlearning_rate = {rate}\ndef model(): pass\ndef dataset(): pass\n"
    with pytest.raises(SettingsError) as caught:
        load_settings(write(text, complete=False))
    assert [problem.place for problem in caught.value.problems] == ["mysettings_case.py:2"]


@pytest.mark.parametrize(
    "text",
    [
        "hparams = {'a': None, 'b': True, 'c': 1, 'd': 0.5, 'e': 'x', 'f': [1, (2, 3)], 'g': {'h': 1}}",
        "import numpy as np; hparams = {'a': np.float32(3)}",
        "strategy = 'MirroredStrategy'; gpus = []",
        "early_stopping_patience = None; checkpoint_every_minutes = None; gradient_clip_norm = 1",
        "steps_per_epoch = 0; validation_steps = 0; train_size = 1e3",
    ],
)
def test_settings_that_fit_are_taken(write, text):
    file = write(text + "\n")
    assert load_settings(file).file == file


def test_zero_steps_mean_until_the_data_ends(write):
    settings = load_settings(write("steps_per_epoch = 0\nvalidation_steps = 5\n"))
    assert settings.steps_per_epoch is None
    assert settings.validation_steps == 5


def test_wrong_types_and_wrong_combinations_are_reported_together(write):
    with pytest.raises(SettingsError) as caught:
        load_settings(write("epochs = 'many'\ngrpc_port = 8501\n"))
    assert [problem.name for problem in caught.value.problems] == ["epochs", "rest_port"]


def test_an_override_that_does_not_fit_the_rest_is_reported_as_override(write):
    with pytest.raises(SettingsError) as caught:
        load_settings(write(""), ["rest_port=9000"])
    assert str(caught.value).startswith("override: rest_port: `grpc_port` is 9000, too.")


@pytest.mark.parametrize(
    "start", ["'earliest'", "'latest'", "'2026-11-22 14:00'", "1.7e9", "__import__('datetime').datetime(2026, 11, 22)"]
)
def test_a_topic_is_read_from_an_end_or_a_time_on(write, start):
    loaded = load_settings(write(f"kafka_start = {start}\nkafka_options = {{'sasl.password': '${{NAME}}'}}\n"))
    assert (loaded.kafka_start, loaded.kafka_options) == (eval(start), {"sasl.password": "${NAME}"})
