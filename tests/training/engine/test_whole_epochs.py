"""Epochs that are trained and validated in one call end with the bits of those that are not."""

import pytest

from experiments_manager.training.engine import whole_epochs
from experiments_manager.training.engine.chunks import ChunkSize
from experiments_manager.training.engine.whole_epochs import WholeEpochs

pytestmark = pytest.mark.usefixtures("tensorflow")

KINDS = {
    "as it is": "",
    "a rest of the data": "batch_size = 7",
    "no validation": """
        monitor = "loss"
        _whole = dataset
        def dataset(split):
            return _whole(split) if split == "train" else None
        """,
    "no averages": "ema_momentum = None",
    "not shuffled": "shuffle = False",
    "dropout and normalization": """
        def model(hparams):
            layers = keras.layers
            return keras.Sequential([
                keras.Input([3]), layers.Dense(6), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(1),
            ])
        """,
    "accumulation, clipping and metrics": """
        gradient_accumulation_steps = 2
        gradient_clip_norm = 0.5
        metrics = ["mae", keras.metrics.RootMeanSquaredError()]
        """,
    "plateaus and a callback at the ends of epochs": """
        reduce_lr_patience = 1
        reduce_lr_min_delta = 0.5
        class Noise(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate) * 0.9
            def on_epoch_end(self, epoch, logs=None):
                self.model.layers[-1].bias.assign_add([logs["val_loss"] / 100])
        def callbacks():
            return [Noise()]
        """,
    "weights of samples and classes of several heads": """
        metrics = {"a": ["accuracy", keras.metrics.F1Score(name="f1")], "b": ["mae"]}
        loss = {"a": "categorical_crossentropy", "b": "mse"}
        def dataset(split):
            x = np.random.default_rng(samples[split]).normal(size=(samples[split], 3)).astype("float32")
            labels = keras.utils.to_categorical(x.argmax(1), 3)
            return x, {"a": labels, "b": x[:, :1]}, {"a": np.abs(x[:, 0]), "b": np.abs(x[:, 1])}
        def model(hparams):
            x = keras.Input([3], name="x")
            return keras.Model(x, {
                "a": keras.layers.Dense(3, activation="softmax", name="a")(x), "b": keras.layers.Dense(1, name="b")(x),
            })
        """,
}
LONG = [*KINDS][1:]
"""What takes a second or two to compile."""


@pytest.fixture
def trained_by_epochs(monkeypatch):
    """Notes which epochs were trained in one call: all that may be, however long they take."""
    epochs, train = [], WholeEpochs.train

    def noted(self):
        epochs.append(self._experiment.state.progress.epoch)
        return train(self)

    monkeypatch.setattr(WholeEpochs, "is_due", lambda self, *_: self._experiment.state.progress.step == 0)
    monkeypatch.setattr(WholeEpochs, "train", noted)
    return epochs


@pytest.mark.parametrize(
    ("source", "jit_compile"),
    [
        *(pytest.param(KINDS[kind], False, id=kind, marks=pytest.mark.slow if kind in LONG else ()) for kind in KINDS),
        pytest.param(KINDS["a rest of the data"], True, id="a rest of the data, by XLA", marks=pytest.mark.slow),
    ],
)
def test_bits_and_logs_are_those_of_the_loop(
    source, jit_compile, experiment, trained_by_epochs, same_bits, monkeypatch, tmp_path
):
    overrides = {"epochs": 6, "tensorboard": True, "jit_compile": jit_compile, "early_stopping_patience": None}
    whole = experiment(source, overrides)
    assert trained_by_epochs == [0, 1, 2, 3, 4, 5]
    monkeypatch.setattr(WholeEpochs, "suits", lambda *_: False)
    looped = experiment(source, overrides, working_dir=tmp_path / "looped")
    assert same_bits(whole.tensors, looped.tensors) == []
    assert [report.logs for report in whole.epochs] == [report.logs for report in looped.epochs]
    assert [report.improved for report in whole.epochs] == [report.improved for report in looped.epochs]
    for name in ("gradient_norm", "ema_distance"):
        got, expected = ([report.measures.get(name) for report in run.epochs] for run in (whole, looped))
        assert got == (pytest.approx(expected, rel=1e-5) if None not in expected else expected)


@pytest.mark.parametrize(
    ("source", "overrides"),
    [
        ("", {"checkpoint_every_steps": 3}),
        ("", {"log_every_steps": 2, "tensorboard": True}),
        (
            """
            class Looks(keras.callbacks.Callback):
                def on_test_begin(self, logs=None):
                    pass
            def callbacks():
                return [Looks()]
            """,
            {},
        ),
        (
            """
            import tensorflow as tf
            _arrays = dataset
            def dataset(split):
                return tf.data.Dataset.from_tensor_slices(_arrays(split)).batch(8)
            """,
            {},
        ),
    ],
    ids=["checkpoints by step", "scalars by step", "a callback within", "a pipeline"],
)
def test_they_are_not_taken_where_somebody_looks_within(source, overrides, experiment, trained_by_epochs):
    experiment(source, {"epochs": 4, **overrides})
    assert trained_by_epochs == []


def test_they_are_not_taken_where_epochs_are_long_or_few(experiment, monkeypatch):
    trained, train = [], WholeEpochs.train
    monkeypatch.setattr(WholeEpochs, "train", lambda self: trained.append(self) or train(self))
    experiment("", {"epochs": whole_epochs.EPOCHS_THAT_REPAY - 1, "early_stopping_patience": None})
    assert not trained
    monkeypatch.setattr(whole_epochs, "EPOCHS_THAT_REPAY", 0)
    monkeypatch.setattr(ChunkSize, "steps", lambda self, at_most: 1)
    experiment("", {"epochs": 5})
    assert not trained


def test_a_loss_that_is_no_number_stops_training_at_its_step(experiment, trained_by_epochs):
    from experiments_manager.training.errors import DivergedError

    source = """
        class Spoils(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                if epoch == 4:
                    self.model.optimizer.learning_rate = 1e30
        def callbacks():
            return [Spoils()]
        """
    with pytest.raises(DivergedError, match=r"after step 2\d ") as caught:
        experiment(source, {"epochs": 9})
    assert trained_by_epochs[-1] == 5
    assert 25 < caught.value.step <= 30


def test_every_version_that_is_exported_has_the_weights_of_its_step(experiment, trained_by_epochs, settle):
    import numpy as np
    import tensorflow as tf

    trained = experiment("", {"export": True, "epochs": 8, "keep_versions": 0}, should_stop=lambda: bool(settle()))
    best = trained.snapshot.progress.best.step
    assert max(version.version for version in trained.versions) == best
    served = tf.saved_model.load(str(trained.run.exports_dir / str(best))).signatures["serving_default"]
    x = np.ones([1, 3], np.float32)
    kernel, bias = (trained.tensors[name] for name in sorted(trained.tensors) if name.startswith("best/"))
    np.testing.assert_allclose(served(position=x)["height"], x @ kernel + bias, rtol=1e-5)


def test_watchers_see_the_averaged_weights(experiment, trained_by_epochs, recorder):
    import numpy as np

    seen = []

    class Looks(type(recorder)):
        def on_validated(self, view):
            seen.append((view.weights(), view.samples(4).outputs["height"]))

    trained = experiment("", {"epochs": 5}, make_watchers=lambda run, settings: [Looks()])
    assert trained_by_epochs[-1] == 4
    averages = [trained.tensors[name] for name in sorted(trained.tensors) if name.startswith("averages/")]
    weights, outputs = seen[-1]
    for value, average in zip(weights.values(), averages, strict=True):
        np.testing.assert_array_equal(value, average)
    assert outputs.shape == (4, 1)


def test_a_training_that_fails_leaves_the_version_of_its_best_epoch(experiment, only_run, trained_by_epochs):
    from experiments_manager.settings import UserCodeError

    source = """
        class Fails(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                if epoch == 3:
                    raise RuntimeError("no more")
        def callbacks():
            return [Fails()]
        """
    with pytest.raises(UserCodeError, match="no more"):
        experiment(source, {"export": True, "epochs": 9})
    run = only_run()
    versions = [int(path.name) for path in run.exports_dir.iterdir() if path.name.isdigit()]
    assert max(versions) == 20
