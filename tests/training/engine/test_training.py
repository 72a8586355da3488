"""What one may ask of training: kinds of data, devices' number formats, schedules, own optimisers."""

import numpy as np
import pytest

from experiments_manager.settings import SettingsError, load_settings

PIPELINE = """
    def dataset(split):
        x = np.random.default_rng(samples[split]).normal(size=(samples[split], 3)).astype("float32")
        return tf.data.Dataset.from_tensor_slices((x, x.sum(axis=1, keepdims=True))).batch(8){further}
"""


def steps_of_epochs(trained):
    ends = [report.global_step for report in trained.epochs]
    return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "steps"),
    [
        ("", [5, 5]),
        ("batch_size = 16", [3, 3]),
        ("steps_per_epoch = 2", [2, 2]),
        ("steps_per_epoch = 50", [5, 5]),
        (PIPELINE.format(further=""), [5, 5]),
        (PIPELINE.format(further=".filter(lambda x, y: True)"), [5, 5]),
        (PIPELINE.format(further=".repeat()") + "    steps_per_epoch = 7\n    validation_steps = 2\n", [7, 7]),
        (PIPELINE.format(further="") + "    steps_per_epoch = 3\n", [3, 3]),
    ],
    ids=[
        "arrays",
        "a_smaller_last_batch",
        "fewer_steps_than_arrays",
        "more_steps_than_arrays",
        "pipeline",
        "pipeline_of_unknown_length",
        "endless_pipeline",
        "fewer_steps_than_the_pipeline",
    ],
)
def test_an_epoch_has_as_many_steps_as_data_or_settings_say(experiment, source, steps):
    assert steps_of_epochs(experiment(source)) == steps


@pytest.mark.slow
def test_a_generator_of_unknown_length_ends_its_epochs_itself(experiment):
    source = """
        def dataset(split):
            def rows():
                for number in range(samples[split] // 8):
                    x = np.random.default_rng(number).normal(size=(8, 3))
                    yield x, x.sum(axis=1, keepdims=True)

            return tf.data.Dataset.from_generator(rows, output_signature=(tf.TensorSpec([8, 3]), tf.TensorSpec([8, 1])))
    """
    trained = experiment(source)
    assert steps_of_epochs(trained) == [5, 5]
    assert trained.history["val_loss"][1] < trained.history["val_loss"][0]


def test_logs_of_an_own_step_are_those_of_the_last_batch_where_the_length_is_unknown(experiment):
    source = """
        class Own(keras.Sequential):
            def train_step(self, data):
                return {"loss": 0.0 * tf.reduce_sum(data[0]) + 1.0, "rows": tf.shape(data[0])[0]}

            def test_step(self, data):
                return {"loss": 0.0 * tf.reduce_sum(data[0]) + 3.0, "rows": tf.shape(data[0])[0]}

        def model(hparams):
            return Own([keras.Input([3]), keras.layers.Dense(1)])
    """
    trained = experiment([source, PIPELINE.format(further=".filter(lambda x, y: True)")])
    expected = {"loss": [1.0, 1.0], "rows": [8.0, 8.0], "val_loss": [3.0, 3.0], "val_rows": [8.0, 8.0]}
    assert trained.history == expected


def test_a_pydataset_is_trained_on(experiment):
    source = """
        class Rows(keras.utils.PyDataset):
            def __init__(self, batches):
                super().__init__()
                self.batches = batches

            def __len__(self):
                return self.batches

            def __getitem__(self, index):
                x = np.random.default_rng(index).normal(size=(8, 3))
                return x, x.sum(axis=1, keepdims=True)

        def dataset(split):
            return Rows(samples[split] // 8)
    """
    trained = experiment(source)
    assert steps_of_epochs(trained) == [5, 5]
    assert trained.run.manifest["data_position"] == "indexed"


def test_nested_data_reach_the_model_as_they_are(experiment):
    source = """
        loss = {"sum": "mse"}

        def dataset(split):
            a, b, c = np.random.default_rng(samples[split]).normal(size=(3, samples[split], 2)).astype("float32")
            return {"pair": (a, b), "single": c}, {"sum": a + b + c}

        class Nested(keras.Model):
            def __init__(self):
                super().__init__()
                self.head = keras.layers.Dense(2)

            def call(self, x):
                first, second = x["pair"]
                return {"sum": self.head(keras.ops.concatenate([first, second, x["single"]], axis=1))}

        def model(hparams):
            return Nested()
    """
    trained = experiment(source, {"epochs": 3, "export": True})
    assert trained.history["loss"][-1] < trained.history["loss"][0]
    assert trained.messages == []


def test_inputs_alone_are_enough_for_a_model_that_needs_no_targets(experiment):
    source = """
        loss = None

        class Autoencoder(keras.Sequential):
            def train_step(self, x):
                with tf.GradientTape() as tape:
                    loss = tf.reduce_mean((self(x, training=True) - x) ** 2)
                self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
                return {"loss": loss}

            def test_step(self, x):
                return {"loss": tf.reduce_mean((self(x) - x) ** 2)}

        def dataset(split):
            return np.random.default_rng(samples[split]).normal(size=(samples[split], 3)).astype("float32")

        def model(hparams):
            return Autoencoder([keras.Input([3]), keras.layers.Dense(3)])
    """
    trained = experiment(source)
    assert trained.history["val_loss"][1] < trained.history["val_loss"][0]


GAN = """
    loss = None
    monitor = "val_generator"

    class Gan(keras.Model):
        def __init__(self):
            super().__init__()
            self.generator = keras.Sequential([keras.Input([3]), keras.layers.Dense(3)])
            self.critic = keras.Sequential([keras.Input([3]), keras.layers.Dense(1)])
            self.critic_optimizer = keras.optimizers.Adam(0.01)

        def call(self, x):
            return self.critic(self.generator(x))

        def train_step(self, x):
            with tf.GradientTape(persistent=True) as tape:
                fake = tf.reduce_mean(self(x))
                critic = fake - tf.reduce_mean(self.critic(x)) + tf.reduce_mean(self.critic(x) ** 2)
                generator = -fake
            parts = (self.generator, self.optimizer, generator), (self.critic, self.critic_optimizer, critic)
            for part, optimizer, loss in parts:
                optimizer.apply(tape.gradient(loss, part.trainable_variables), part.trainable_variables)
            return {"generator": generator, "critic": critic}

        def test_step(self, x):
            return {"generator": -tf.reduce_mean(self(x))}

    def dataset(split):
        return np.random.default_rng(samples[split]).normal(size=(samples[split], 3)).astype("float32")

    def optimizer(learning_rate, model):
        made = keras.optimizers.Adam(learning_rate)
        made.build(model.generator.trainable_variables)
        return made

    def model(hparams):
        return Gan()
"""


@pytest.mark.slow
def test_a_model_with_an_optimizer_of_its_own_resumes_to_the_bit(experiment, resume, same_bits):
    whole = experiment(GAN, {"epochs": 3})
    part = experiment(GAN, {"epochs": 1})
    rest = resume(part.run.path, {"epochs": 3})
    assert same_bits(rest.tensors, whole.tensors) == []


def test_a_schedule_sets_the_learning_rate(experiment):
    source = """
        def learning_rate(steps_per_epoch):
            return keras.optimizers.schedules.PiecewiseConstantDecay([steps_per_epoch], [0.1, 0.01])
    """
    assert [report.learning_rate for report in experiment(source).epochs] == pytest.approx([0.1, 0.01])


@pytest.mark.slow
@pytest.mark.parametrize("given", ['"adagrad"', "keras.optimizers.Adagrad(learning_rate)"], ids=["name", "instance"])
def test_an_optimizer_may_be_a_name_or_an_instance(experiment, given):
    assert experiment(f"optimizer = {given}\n").history["loss"] == experiment('optimizer = "Adagrad"\n').history["loss"]


@pytest.mark.slow
def test_xla_gives_the_same_losses(experiment):
    compiled = experiment("", {"jit_compile": True})
    assert compiled.history["loss"] == pytest.approx(experiment().history["loss"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_layers_compute_in_half_precision_and_weights_stay_in_single(experiment, precision):
    import keras

    source = """
        kinds = []

        def model(hparams):
            made = keras.Sequential([keras.Input([3]), keras.layers.Dense(4), keras.layers.Dense(1, dtype="float32")])
            kinds.append(made.layers[0].compute_dtype)
            return made
    """
    trained = experiment(source, {"mixed_precision": precision, "epochs": 4, "export": True})
    assert trained.settings.module.kinds == [precision]
    assert {weight.dtype.name for weight in trained.weights} == {"float32"}
    assert trained.history["loss"][-1] < trained.history["loss"][0]
    scaled = [name for name in trained.tensors if name.endswith("dynamic_scale")]
    assert len(scaled) == (precision == "float16")
    assert trained.result.exported_model is not None
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.slow
def test_clipping_reaches_the_optimizer_below_a_scaled_loss(experiment):
    rules = {"mixed_precision": "float16", "gradient_clip_value": 1e-9, "epochs": 1, "ema_momentum": None}
    source = "def optimizer(learning_rate):\n    return keras.optimizers.SGD(learning_rate)\n"
    trained = experiment(source, rules)
    begin = experiment(source, {**rules, "learning_rate": 1e-30})
    assert np.allclose(trained.weights[0], begin.weights[0], atol=1e-6)


def test_a_gpu_that_is_not_there_is_named(experiment, only_run):
    with pytest.raises(SettingsError, match=r"gpus: this machine has no GPU .* got \[7\]"):
        experiment("", {"gpus": [7]})
    assert only_run().manifest["state"] == "failed"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["noisy_curve", "two_rings"])
def test_a_settings_file_of_the_earlier_framework_trains_unmodified(name, tmp_path, monkeypatch, recorder):
    import shutil
    from pathlib import Path

    import tensorflow as tf

    from experiments_manager.runs import open_run
    from experiments_manager.training.engine.context import RunOptions
    from experiments_manager.training.engine.runner import start_run

    user = shutil.copytree(Path(__file__).parents[2] / "legacy" / "examples", tmp_path / "user")
    monkeypatch.chdir(user)
    settings = load_settings(user / f"mysettings_{name}.py")
    result = start_run(settings, RunOptions(make_watchers=lambda run, settings: [recorder]))
    assert (result.state, result.epochs, recorder.messages) == ("finished", settings.nbEpoch, [])
    assert Path.cwd() == user
    run = open_run(result.run_dir)
    assert run.path.is_relative_to(user / settings.workingFolder)
    signature = tf.saved_model.load(str(result.exported_model)).signatures["serving_default"]
    assert list(signature.structured_input_signature[1]) == settings.served_input_names
    assert set(settings.served_head_names) <= signature.structured_outputs.keys()
    assert bool(list(run.logs_dir.glob("custom/events*"))) == settings.has("tensorboard_logs")
