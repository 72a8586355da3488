"""Data that cannot be trained on, and code of the user's that raises: one message, and a run that says `failed`."""

import pytest

from experiments_manager.settings import SettingsError, UserCodeError
from experiments_manager.training.errors import DataError, DivergedError, TrainingError

BAD_DATA = {
    "empty arrays": ("np.zeros([0, 3]), np.zeros([0, 1])", "the train split is empty"),
    "an empty pipeline": ("tf.data.Dataset.from_tensor_slices((np.zeros([0, 3]), np.zeros([0, 1]))).batch(2)", "empty"),
    "nothing": ("None", "there is no training data"),
    "different lengths": ("np.zeros([8, 3]), np.zeros([7, 1])", "differ in length.* got x 8, y 7"),
    "different lengths in a dict": ("{'a': np.zeros([8, 3]), 'b': np.zeros([9, 3])}, None", r"x\[a\] 8, x\[b\] 9"),
    "wrong shapes": ("np.zeros([8, 4]), np.zeros([8, 1])", r"do not fit together.*x \(8, 4\) float32"),
    "not a number": ("np.full([8, 3], np.nan), np.zeros([8, 1])", "x of the train split holds 24 values that are NaN"),
    "infinity": ("np.zeros([8, 3]), np.array([[0.0]] * 7 + [[np.inf]])", "y .* holds 1 .* the first in sample 7"),
    "a number": ("42", "x of the train split is a single value"),
    "a text": ("'nonsense'", "x of the train split is a single value"),
    "an object": ("object()", "x of the train split is no array.* got object"),
    "ragged rows": ("tf.ragged.constant([[1.0, 2.0], [3.0]]), np.ones([2, 1])", "is a RaggedTensor.* Pad it"),
    "four parts": ("(np.zeros([8, 3]),) * 4", "a tuple of 4 parts"),
    "an endless pipeline": (
        "tf.data.Dataset.from_tensors((np.zeros([8, 3]), np.zeros([8, 1]))).repeat()",
        "never ends.* Set `steps_per_epoch`",
    ),
    "a generator that gives nothing": (
        "tf.data.Dataset.from_generator(lambda: iter(()), output_signature=(tf.TensorSpec([None, 3]),) * 2)",
        "gives no batch",
    ),
    "a pipeline without batches": (
        "tf.data.Dataset.from_tensor_slices((np.zeros([8, 3]), np.zeros([8, 1])))",
        "do not fit together",
    ),
}


@pytest.mark.parametrize(("data", "message"), BAD_DATA.values(), ids=BAD_DATA.keys())
def test_bad_data_is_refused_with_its_place(experiment, only_run, data, message):
    with pytest.raises(DataError, match=message) as caught:
        experiment(f"def dataset(split):\n    return {data}\n")
    assert str(caught.value).startswith("mysettings_curve.py:") or "/mysettings_curve.py:" in str(caught.value)
    error = only_run().manifest["error"]
    assert only_run().manifest["state"] == "failed"
    assert (error["type"], error["text"]) == ("DataError", str(caught.value))
    assert "mysettings_curve.py:" in error["place"]


def test_nan_is_taken_where_the_settings_allow_it(experiment):
    source = """
        allow_nan = True

        def loss(y_true, y_pred):
            known = tf.math.is_finite(y_true)
            return tf.reduce_mean(tf.where(known, (tf.where(known, y_true, 0.0) - y_pred) ** 2, 0.0), axis=-1)

        def dataset(split):
            return np.ones([8, 3]), np.array([[np.nan], [1.0]] * 4)
    """
    assert experiment(source).result.state == "finished"


def test_an_empty_validation_split_is_named(experiment):
    source = """
        def dataset(split):
            samples = 8 if split == "train" else 0
            return np.zeros([samples, 3]), np.zeros([samples, 1])
    """
    with pytest.raises(DataError, match="the validation split is empty"):
        experiment(source)


@pytest.mark.parametrize(
    ("source", "hook"),
    [
        ("def dataset(split):\n    raise OSError('the disk is on fire')\n", "dataset"),
        ("def model(hparams):\n    raise OSError('the disk is on fire')\n", "model"),
        ("def optimizer(learning_rate):\n    raise OSError('the disk is on fire')\n", "optimizer"),
        ("def metrics():\n    raise OSError('the disk is on fire')\n", "metrics"),
        ("def callbacks():\n    raise OSError('the disk is on fire')\n", "callbacks"),
    ],
    ids=["dataset", "model", "optimizer", "metrics", "callbacks"],
)
def test_a_hook_that_raises_is_named_with_its_line(experiment, only_run, source, hook):
    with pytest.raises(UserCodeError, match=f"{hook}: OSError: the disk is on fire") as caught:
        experiment("\n" + source)
    line = (only_run().settings_file.read_text().splitlines()).index("    raise OSError('the disk is on fire')") + 1
    assert caught.value.location.endswith(f"mysettings_curve.py:{line}")
    manifest = only_run().manifest
    assert (manifest["state"], manifest["error"]["type"]) == ("failed", "OSError")
    assert manifest["error"]["place"] == caught.value.location


def test_an_unknown_layer_to_embed_is_refused_before_training_with_a_list_of_the_layers(experiment):
    with pytest.raises(
        SettingsError, match=r"embeddings: .*Expected some of height, got 'heigth'\. Did you mean 'height'"
    ):
        experiment('tensorboard = True\nembeddings = ["heigth"]\n')


def test_a_layer_whose_output_cannot_be_reached_is_refused(experiment):
    subclassed = """
        class Line(keras.Model):
            def __init__(self):
                super().__init__()
                self.height = keras.layers.Dense(1, name="height")

            def call(self, x):
                return self.height(x)


        tensorboard = True
        embeddings = ["height"]


        def model():
            return Line()
    """
    with pytest.raises(SettingsError, match="embeddings: The output of layer 'height' cannot be reached"):
        experiment(subclassed)


def test_a_misspelt_monitor_is_refused_with_the_nearest_name(experiment, only_run):
    metrics = "def metrics():\n    return [keras.metrics.MeanAbsoluteError(name=f'{session_name}_error')]\n"
    with pytest.raises(
        SettingsError, match=r"monitor: .*Expected one of .*curve_error.* Did you mean 'val_curve_error'"
    ) as caught:
        experiment(metrics + 'monitor = "val_curve_eror"\n')
    error = only_run().manifest["error"]
    assert error["type"] == "SettingsError"
    assert error["place"] == caught.value.problems[0].place


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def model(hparams):\n    return 'mlp'\n", "model: Expected a `keras.Model`, got str"),
        ("def optimizer():\n    return 3\n", "optimizer: Expected a Keras optimizer or its name, got int"),
        ("def callbacks():\n    return ['early']\n", "callbacks: .* got a str in it"),
        (
            "reduce_lr_patience = 1\ndef learning_rate():\n"
            "    return keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)\n",
            "learning_rate: A schedule cannot be lowered",
        ),
        (
            "class_weight = {0: 2.0}\ndef dataset(split):\n    return np.zeros([8, 3]), [np.zeros([8, 1])]\n",
            "class_weight: Expected data of the form",
        ),
    ],
    ids=["model", "optimizer", "callbacks", "schedule_and_plateau", "class_weight"],
)
def test_what_a_hook_returns_is_checked(experiment, source, message):
    with pytest.raises(SettingsError, match=message):
        experiment(source)


def test_an_optimizer_of_unknown_name_is_refused(experiment):
    with pytest.raises(SettingsError, match="optimizer: .*'Adamm'"):
        experiment('optimizer = "Adamm"\n')


def test_a_loss_that_is_no_number_stops_the_run_and_names_step_and_batch(experiment, only_run):
    source = """
        ema_momentum = None
        checkpoint_every_steps = 4
        shuffle = False

        def dataset(split):
            x = np.ones([40, 3], "float32")
            x[34:] = 3e38  # in the fifth batch
            return x, np.ones([40, 1], "float32")
    """
    with pytest.raises(DivergedError, match=r"loss: .* after step 5 \(batch: x \(8, 3\) float32, y") as caught:
        experiment(source)
    assert caught.value.step == 5
    run = only_run()
    assert run.manifest["state"] == "failed"
    assert run.manifest["error"]["type"] == "DivergedError"
    assert [path.name for path in run.checkpoints_dir.glob("epoch-*")] == ["epoch-00000-step-00000004"]


def test_labels_beyond_the_classes_are_a_message_and_no_traceback_of_the_graph(experiment, only_run):
    source = """
        loss = "sparse_categorical_crossentropy"

        def dataset(split):
            return np.ones([8, 3]), np.full([8], 7)

        def model(hparams):
            return keras.Sequential([keras.Input([3]), keras.layers.Dense(3, activation="softmax")])
    """
    with pytest.raises(TrainingError, match="Expected classes 0 to 2.* got 7 in sample 0"):
        experiment(source)
    assert only_run().manifest["state"] == "failed"


def test_a_generator_that_raises_is_a_message_with_its_reason(experiment, only_run):
    source = """
        def dataset(split):
            def rows():
                yield np.ones([8, 3]), np.ones([8, 1])
                raise KeyError("row 2 is torn")
            return tf.data.Dataset.from_generator(rows, output_signature=(tf.TensorSpec([8, 3]), tf.TensorSpec([8, 1])))
    """
    with pytest.raises(TrainingError, match="row 2 is torn"):
        experiment(source)
    assert only_run().manifest["state"] == "failed"


def test_a_watcher_that_fails_is_left_out_and_the_run_goes_on(experiment, recorder):
    class Broken(type(recorder)):
        def on_epoch(self, report):
            raise RuntimeError("no terminal")

    trained = experiment(make_watchers=lambda run, settings: [Broken(), recorder])
    assert trained.result.state == "finished"
    assert len(recorder.epochs) == 2
    assert [end.state for end in recorder.ends] == ["finished"]


def test_watchers_hear_of_the_end_of_a_run_that_failed(experiment, recorder):
    with pytest.raises(UserCodeError):
        experiment("def model(hparams):\n    raise OSError('no')\n", make_watchers=lambda run, settings: [recorder])
    assert [end.state for end in recorder.ends] == ["failed"]


def test_watchers_that_cannot_be_made_fail_the_run(experiment, only_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # away from this file, which would count as the user's

    def make_watchers(run, settings):
        raise OSError("no logs")

    with pytest.raises(OSError, match="no logs"):
        experiment(make_watchers=make_watchers)
    assert only_run().manifest["state"] == "failed"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "loss = 'mean_squard_error'",
            "loss: Unknown Keras loss 'mean_squard_error'. Expected the name of one. Did you mean 'mean_squared_error'?",  # noqa: E501
        ),
        (
            "metrics = ['accurcy']",
            "metrics: Unknown Keras metric 'accurcy'. Expected the name of one. Did you mean 'accuracy'?",
        ),
    ],
)
def test_a_misspelt_loss_or_metric_is_named_with_the_nearest_one(experiment, source, message):
    with pytest.raises(SettingsError) as caught:
        experiment(source + "\n")
    assert message in str(caught.value)
    assert "mysettings_curve.py:" in str(caught.value)


def test_a_layer_of_the_users_that_raises_is_reported_as_user_code_with_its_line(experiment, only_run):
    source = """
class Broken(keras.layers.Layer):
    def call(self, x):
        return x[: {}["missing_size"]]


def model(hparams):
    return keras.Sequential([keras.Input((1,)), Broken(), keras.layers.Dense(1)])
"""
    with pytest.raises(UserCodeError, match="missing_size"):
        experiment(source)
    assert "mysettings_curve.py:" in only_run().manifest["error"]["place"]
