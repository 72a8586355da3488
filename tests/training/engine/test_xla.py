"""XLA compiles the loop of a training where that is asked for or pays, and a resume keeps to what was chosen."""

import dataclasses

import numpy as np
import pytest

from experiments_manager.training.engine import xla

pytestmark = pytest.mark.usefixtures("tensorflow")

CONVOLUTIONS = """
    def dataset(split):
        return np.zeros([16, 6, 6, 1], "float32"), np.zeros([16, 1], "float32")
    def model(hparams):
        layers = keras.layers
        return keras.Sequential([keras.Input([6, 6, 1]), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(1)])
    """
WIDE = """
    batch_size = 16
    def model(hparams):
        layers = keras.layers
        return keras.Sequential([keras.Input([3]), layers.Dense(400), layers.Dense(400), layers.Dense(1)])
    """
PIPELINE = """
    import tensorflow as tf
    _arrays = dataset
    def dataset(split):
        return tf.data.Dataset.from_tensor_slices(_arrays(split)).batch(8)
    """
BATCHES = """
    class Counts(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            pass
    def callbacks():
        return [Counts()]
    """
DRAWS = """
    import tensorflow as tf
    class Noise(keras.layers.Layer):
        def call(self, x, training=False):
            return x + tf.random.normal(tf.shape(x)) if training else x
    def model(hparams):
        return keras.Sequential([keras.Input([3]), Noise(), keras.layers.Dense(1)])
    """
TEXTS = """
    import tensorflow as tf
    class Rounded(keras.layers.Layer):
        def call(self, x):
            return x + tf.stop_gradient(tf.strings.to_number(tf.strings.as_string(tf.reduce_sum(x))))
    def model(hparams):
        return keras.Sequential([keras.Input([3]), Rounded(), keras.layers.Dense(1)])
    """
RECURRENT = """
    def dataset(split):
        return np.zeros([40, 5, 2], "float32"), np.zeros([40, 1], "float32")
    def model(hparams):
        return keras.Sequential([keras.Input([5, 2]), keras.layers.GRU(2), keras.layers.Dense(1)])
    """
DROPOUT = """
    def model(hparams):
        return keras.Sequential([keras.Input([3]), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
    """


def chosen(trained):
    found = trained.run.manifest["xla"]
    return found["compiles"], found["reason"]


@pytest.mark.parametrize(
    ("source", "overrides", "compiles", "reason"),
    [
        ("", {}, "nothing", "10 steps do not repay the compilation"),
        ("", {"jit_compile": False}, "nothing", "`jit_compile` is False"),
        (PIPELINE, {"jit_compile": True}, "step", "no parts of arrays in memory"),
        (BATCHES, {"jit_compile": True}, "step", "callbacks look at each batch"),
    ],
    ids=["few steps", "off", "a pipeline", "callbacks by batch"],
)
def test_what_is_compiled_follows_from_setting_and_data(source, overrides, compiles, reason, experiment):
    got, why = chosen(experiment(source, {"epochs": 2, **overrides}))
    assert got == compiles
    assert reason in why


@pytest.mark.parametrize(
    ("source", "compiles", "reason"),
    [
        ("", "loop", "a small step in memory"),
        (RECURRENT, "nothing", "5 steps do not repay the compilation, 1,000,000,000 would"),
        (CONVOLUTIONS, "nothing", "Conv2D, which XLA does in one thread"),
        (WIDE, "nothing", "2,560,000 multiplications"),
        (DRAWS, "nothing", "RandomStandardNormal, which XLA does not repeat"),
        (TEXTS, "nothing", "cannot be compiled"),
        (DROPOUT, "nothing", "draws random numbers"),
    ],
    ids=[
        "small",
        "recurrent",
        "convolutions",
        "wide",
        "random numbers of a kernel",
        "an operation that XLA lacks",
        "dropout",
    ],
)
@pytest.mark.slow
def test_auto_compiles_the_loop_of_small_steps_that_are_repeated_often(
    source, compiles, reason, experiment, monkeypatch
):
    monkeypatch.setattr(xla, "STEPS_THAT_REPAY", 1)
    monkeypatch.setattr(xla, "RECURRENT_STEPS_THAT_REPAY", 10**9)
    got, why = chosen(experiment(source, {"epochs": 1}))
    assert got == compiles
    assert reason in why


@pytest.mark.slow
def test_an_operation_that_xla_lacks_leaves_the_steps_to_be_compiled_where_xla_is_asked_for(experiment):
    from experiments_manager.common.errors import UserError

    with pytest.raises(UserError, match="String"):
        experiment(TEXTS, {"epochs": 1, "jit_compile": True})


@pytest.mark.slow
def test_both_ways_agree_over_a_thousand_steps(experiment, tmp_path):
    options = {"epochs": 200, "early_stopping_patience": None, "learning_rate": 0.01}
    plain = experiment("", {**options, "jit_compile": False})
    compiled = experiment("", {**options, "jit_compile": True}, working_dir=tmp_path / "compiled")
    assert chosen(compiled)[0] == "loop"
    assert compiled.snapshot.progress.global_step == 1000
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(compiled.history[name], plain.history[name], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [8, 7], ids=["whole batches", "a rest of the data"])
def test_a_resume_within_an_epoch_ends_with_the_same_bits_though_it_has_other_epochs_ahead(
    batch_size, experiment, resume, same_bits, tmp_path, monkeypatch
):
    monkeypatch.setattr(xla, "STEPS_THAT_REPAY", 20)
    options = {"epochs": 6, "batch_size": batch_size, "checkpoint_every_steps": 3}
    undisturbed = experiment("", options)
    asked = iter([False] * 8 + [True] * 100)
    broken = experiment("", options, should_stop=lambda: next(asked), working_dir=tmp_path / "broken")
    assert broken.result.state == "interrupted"
    assert 0 < broken.snapshot.progress.global_step < undisturbed.snapshot.progress.global_step
    monkeypatch.setattr(xla, "STEPS_THAT_REPAY", 1000)
    resumed = resume(broken.result.run_dir)
    assert chosen(resumed) == chosen(undisturbed) == ("loop", "a small step in memory, repeated often")
    assert same_bits(resumed.tensors, undisturbed.tensors) == []


def test_a_run_of_a_release_that_compiled_steps_goes_on_as_it_was_begun(experiment):
    settings = experiment("", {"epochs": 1}).settings
    for before, compiles in ((False, "nothing"), (True, "step")):
        choice = xla.former_choice(settings.jit_compile, {"settings": {"jit_compile": before}})
        assert choice.scope.value == compiles
    assert xla.former_choice("auto", {"settings": {"jit_compile": "auto"}}) is None
    other = {"xla": xla.XlaChoice(True, xla.XlaScope.LOOP, "so").to_json()}
    assert xla.former_choice(False, other) is None
    assert dataclasses.astuple(xla.former_choice(True, other)) == (True, xla.XlaScope.LOOP, "so")
