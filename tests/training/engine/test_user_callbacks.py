"""Keras callbacks of the user's."""

import json

import keras
import numpy as np
import pytest


def test_callbacks_are_called_in_the_order_of_fit(experiment):
    source = """
        calls = []
        hooks = ["on_train_begin", "on_epoch_begin", "on_test_begin", "on_test_end", "on_epoch_end", "on_train_end"]

        class Noting(keras.callbacks.Callback):
            def on_train_begin(self, logs=None): calls.append("train begins")
            def on_epoch_begin(self, epoch, logs=None): calls.append(f"epoch {epoch} begins")
            def on_test_begin(self, logs=None): calls.append("test begins")
            def on_test_end(self, logs=None): calls.append("test ends")
            def on_epoch_end(self, epoch, logs=None): calls.append(f"epoch {epoch} ends with {sorted(logs)}")
            def on_train_end(self, logs=None): calls.append("train ends")

        callbacks = [Noting()]
    """
    trained = experiment(source)
    epochs = [
        call
        for epoch in (0, 1)
        for call in (
            f"epoch {epoch} begins",
            "test begins",
            "test ends",
            f"epoch {epoch} ends with ['loss', 'val_loss']",
        )
    ]
    assert trained.settings.module.calls == ["train begins", *epochs, "train ends"]


def test_a_callback_of_batches_sees_each_of_them_with_its_logs(experiment):
    source = """
        seen = []

        class Noting(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch, logs=None): seen.append(("begin", batch))
            def on_train_batch_end(self, batch, logs=None): seen.append(("end", batch, logs["loss"]))

        callbacks = {"noting": Noting()}
    """
    trained = experiment(source)
    seen = trained.settings.module.seen
    assert [call[:2] for call in seen] == [(kind, batch) for batch in range(5) for kind in ("begin", "end")] * 2
    assert [seen[9][2], seen[19][2]] == trained.history["loss"]


def test_a_lambda_callback_of_batches_is_heard(experiment):
    source = """
        seen = []
        callbacks = [keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))]
    """
    assert experiment(source).settings.module.seen == [0, 1, 2, 3, 4] * 2


def test_a_callback_can_stop_training(experiment, resume):
    source = """
        class Stop(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                self.model.stop_training = epoch == 1

        callbacks = [Stop()]
    """
    trained = experiment(source, {"epochs": 4})
    assert (trained.result.state, trained.result.epochs) == ("finished", 2)
    assert trained.run.manifest["stop_reason"] == "a callback stopped training"
    assert resume(trained.run.path).result.epochs == 2


def test_a_callback_of_batches_can_end_an_epoch_and_the_training(experiment):
    source = """
        callbacks = [keras.callbacks.TerminateOnNaN()]

        class Stop(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                self.model.stop_training = batch == 2

        callbacks += [Stop()]
    """
    trained = experiment(source)
    assert (trained.result.epochs, trained.snapshot.progress.global_step) == (1, 3)


@pytest.mark.slow
def test_keras_model_checkpoint_saves_what_is_trained(experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = """
        callbacks = [keras.callbacks.ModelCheckpoint("{epoch}.weights.h5", save_weights_only=True)]
    """
    trained = experiment(source)
    assert (tmp_path / "1.weights.h5").is_file()
    model = trained.settings.call("model")
    model.load_weights(tmp_path / "2.weights.h5")
    assert all(np.array_equal(one, other) for one, other in zip(model.get_weights(), trained.weights, strict=True))


PLATEAU = """
    learning_rate = 1.0
    callbacks = [keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.1, patience=2, min_delta=100.0)]
"""


@pytest.mark.slow
def test_keras_reduction_on_a_plateau_lowers_the_rate(experiment):
    trained = experiment(PLATEAU, {"epochs": 6})
    assert np.allclose([report.learning_rate for report in trained.epochs], [1, 1, 1, 0.1, 0.1, 0.01])


@pytest.mark.slow
def test_the_memory_of_a_callback_outlives_a_resume(experiment, resume):
    whole = experiment(PLATEAU, {"epochs": 6})
    part = experiment(PLATEAU, {"epochs": 2})
    rest = resume(part.run.path, {"epochs": 6})
    rates = [report.learning_rate for report in [*part.epochs, *rest.epochs]]
    assert rates == [report.learning_rate for report in whole.epochs]


def test_callbacks_are_told_once_of_an_epoch_that_a_run_was_stopped_at_the_beginning_of(
    experiment, resume, recorder, same_bits
):
    source = """
        class Noting(keras.callbacks.Callback):
            begun = 0

            def on_epoch_begin(self, epoch, logs=None):
                self.begun += 1
                self.model.optimizer.learning_rate = 0.1 * np.random.rand() / self.begun

        callbacks = [Noting()]
    """
    whole = experiment(source, {"epochs": 3})
    part = experiment(source, {"epochs": 3}, make_watchers=lambda *_: [recorder], should_stop=lambda: recorder.epochs)
    assert (part.result.state, part.snapshot.progress.global_step) == ("interrupted", 5)
    rest = resume(part.run.path)
    assert same_bits(rest.tensors, whole.tensors) == []
    assert rest.run.manifest["exactness"]["exact"]


def test_a_callback_of_validation_batches_sees_each_of_them_with_its_logs(experiment):
    source = """
        seen = []

        class Noting(keras.callbacks.Callback):
            def on_test_batch_begin(self, batch, logs=None): seen.append(("begin", batch))
            def on_test_batch_end(self, batch, logs=None): seen.append(("end", batch, logs["loss"]))

        callbacks = [Noting()]
    """
    trained = experiment(source)
    seen = trained.settings.module.seen
    batches = len(seen) // 4  # two epochs, begin and end
    assert batches >= 1
    assert [call[:2] for call in seen] == [(kind, batch) for batch in range(batches) for kind in ("begin", "end")] * 2
    assert [seen[2 * batches - 1][2], seen[-1][2]] == trained.history["val_loss"]


def test_large_arrays_that_callbacks_keep_are_tensors_of_the_checkpoint():
    from experiments_manager.training.engine.user_callbacks import UserCallbacks

    class Keeps(keras.callbacks.Callback):
        pass

    keeps, again = Keeps(), Keeps()
    keeps.weights = [np.arange(1000, dtype=np.float32), np.arange(3)]
    keeps.best = (np.float32(0.5), None, "name")
    states, tensors = UserCallbacks([keeps], keras.Sequential(), 1, 1).state()
    assert len(json.dumps(states)) < 500
    assert [tensor.shape for tensor in tensors.values()] == [(1000,)]

    restored = UserCallbacks([again], keras.Sequential(), 1, 1)
    restored.restore(json.loads(json.dumps(states)), tensors)
    restored.begin()
    np.testing.assert_array_equal(again.weights[0], keeps.weights[0])
    np.testing.assert_array_equal(again.weights[1], keeps.weights[1])
    assert again.best == keeps.best


COUNTING_METRIC = """
    epochs = 3
    checkpoint_every_steps = 2

    class Counting(keras.metrics.MeanAbsoluteError):
        resets = 0

        def reset_state(self):
            self.resets += 1
            super().reset_state()

    counting = Counting(name="counting")
    metrics = [counting]

    class Slower(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.optimizer.learning_rate = 0.05 * 0.7 ** counting.resets

    callbacks = [Slower()]
"""


def test_what_a_metric_counts_in_reset_state_counts_at_every_epoch_and_outlives_a_resume(
    experiment, resume, same_bits, tmp_path
):
    whole = experiment(COUNTING_METRIC, working_dir=tmp_path / "whole")
    resets = whole.settings.module.counting.resets
    assert resets >= 6  # of training and validation, in each epoch
    calls = iter(range(1000))
    stopped = experiment(COUNTING_METRIC, working_dir=tmp_path / "stopped", should_stop=lambda: next(calls) > 7)
    assert stopped.run.manifest["state"] == "interrupted"
    resumed = resume(stopped.run.path)
    assert resumed.run.manifest["exactness"]["exact"]
    assert same_bits(whole.tensors, resumed.tensors) == []
