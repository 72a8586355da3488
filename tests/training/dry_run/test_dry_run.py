"""One dry run names all that is wrong, goes on with stand-ins after what fails, and leaves nothing behind."""

import re

import pytest

from experiments_manager import check
from experiments_manager.common.exit_codes import ExitCode
from experiments_manager.settings import SettingsError, UserCodeError

MANY = """
    tensorboard = True
    epochs = "ten"
    metrics = ["mae", lambda y_true, y_pred: None]
    learning_rate = keras.optimizers.schedules.CosineDecay
    class_weight = {"low": 1.0}

    def dataset(split):
        x = np.zeros([16, 3], "float32")
        return x[:, :2] if split == "validation" else x, np.zeros([16, 1])

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.best = logs["val_acc"]

    def callbacks():
        return [Watch(), keras.callbacks.EarlyStopping(monitor="val_acc")]

    def loss(y_true, y_pred):
        tf.reduce_mean(y_pred)

    def tensorboard_logs(model):
        open("left_behind.txt", "w").write(model.name)
"""
NAMED = {
    "epochs": "got 'ten'",
    "metrics": "returned None",
    "learning_rate": "got the class CosineDecay",
    "class_weight": "got the key 'low'",
    "dataset": r"x of the validation split does not fit the input 'position'.*got \(2,\)",
    "loss": "got None|returned None",
    "callbacks": "'val_acc'",
}


def test_everything_is_named_in_one_list_and_nothing_is_written(settings_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError) as caught:
        check(settings_file(MANY), dry_run=True)
    problems = caught.value.problems
    for name, words in NAMED.items():
        said = "\n".join(f"{problem.text}" for problem in problems if problem.name == name)
        assert re.search(words, said), (name, said)
    assert all(problem.line for problem in problems)
    assert sum("EarlyStopping watches" in problem.text for problem in problems) == 1
    assert caught.value.exit_code == ExitCode.BAD_INPUT
    assert any("tensorboard_logs" in text and "left_behind.txt" in text for text in caught.value.not_looked_at)
    assert not (tmp_path / "left_behind.txt").exists()


def test_a_hook_that_fails_hides_no_other(settings_file):
    failing = """
        def dataset(split):
            raise OSError("the share is not mounted")

        def model(hparams):
            return keras.Sequential([keras.Input([3]), keras.layers.Dense(hparams["units"])])

        def optimizer(learning_rate):
            keras.optimizers.SGD(learning_rate)
    """
    with pytest.raises(SettingsError) as caught:
        check(settings_file(failing), dry_run=True)
    assert {problem.name for problem in caught.value.problems} == {"dataset", "hparams['units']", "model", "optimizer"}
    assert caught.value.not_looked_at


def test_data_that_would_fill_the_memory_is_not_made_up(settings_file):
    failing = """
        def dataset(split):
            raise OSError("the share is not mounted")

        def model(hparams):
            x = keras.Input([8, 10**9, 7])
            return keras.Model(x, keras.layers.Dense(1)(keras.layers.GlobalAveragePooling2D()(x)))
    """
    with pytest.raises(UserCodeError, match="the share is not mounted"):
        check(settings_file(failing), dry_run=True)


def test_a_single_problem_is_raised_as_what_it_is(settings_file):
    with pytest.raises(UserCodeError, match="model: RuntimeError: no licence"):
        check(settings_file("def model():\n    raise RuntimeError('no licence')\nexport = False\n"), dry_run=True)
    diverging = "def loss(y_true, y_pred):\n    return tf.reduce_mean(tf.math.log(-1.0 - y_pred**2))\n"
    with pytest.raises(SettingsError, match="loss: the loss of the first batch of the train split is NaN"):
        check(settings_file(diverging), dry_run=True)


def test_loss_and_metrics_see_in_a_dry_run_what_they_see_in_training(settings_file):
    flat_targets = """
        def dataset(split):
            return np.zeros([16, 3], "float32"), np.ones([16])

        def model():
            return keras.Sequential([keras.Input([3]), keras.layers.Dense(1, "sigmoid")])

        def loss(y_true, y_pred):
            return keras.ops.mean(keras.losses.binary_crossentropy(y_true, y_pred)) + tf.reduce_mean(y_true - y_pred)
    """
    assert check(settings_file(flat_targets), dry_run=True)
    named = flat_targets[: flat_targets.index("def loss")] + 'loss = "binary_crossentropy"\n        '
    assert check(settings_file(named), dry_run=True)
    as_before = named.replace("def dataset(split)", "def get_input_pipeline(folder, training, batch_size, epochs)")
    assert check(settings_file(as_before + "metrics = [keras.losses.binary_crossentropy]\n"), dry_run=True)


HIDDEN = """
    loss = "sparse_categorical_crossentropy"
    class_weight = {0: 1.0, 7: 2.0}

    def dataset(split):
        return np.zeros([16, 4], "float32"), np.zeros([16], "int64")

    def augment(image):
        return image[1:]

    class Writes(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["doubled"] = 2 * logs["loss"]

    class Reads(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.last = logs["doubled"]

    def callbacks():
        return [Writes(), Reads()]

    def model():
        x = keras.Input((4,))
        return keras.Model(x, keras.layers.Dense(3, activation="softmaxx")(x))
"""


def test_what_a_misspelt_word_would_hide_is_looked_at_as_it_is_meant(settings_file):
    with pytest.raises(SettingsError) as caught:
        check(settings_file(HIDDEN), dry_run=True)
    said = {problem.name: problem.text for problem in caught.value.problems}
    assert "Did you mean 'softmax'?" in said.pop("keras.layers.Dense(activation=…)")
    assert "there is no class 7. Expected classes 0 to 2" in said.pop("class_weight")
    assert "Did you mean `x`?" in said["augment"] or "got (3,)" in said["augment"]
    assert any("got (3,)" in p.text and p.name == "augment" for p in caught.value.problems)
    said.pop("augment")
    assert said == {}, "what one callback writes to the logs the next one reads"
    assert not caught.value.not_looked_at
