"""What is measured while a run trains, and that measuring changes nothing."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments_manager.events import Watcher
from experiments_manager.training.engine.chunks import ChunkSize
from experiments_manager.training.observe import step_statistics

NOISY = """
    from keras import layers

    metrics = ["mae"]
    checkpoint_every_minutes = None
    checkpoint_every_steps = 3
    log_every_steps = 2
    epochs = 3

    def model(hparams):
        return keras.Sequential([
            keras.Input([3]), layers.BatchNormalization(), layers.Dropout(0.2), layers.Dense(4, activation="gelu"),
            layers.Dense(1),
        ])
"""
PIPELINE = """
    def dataset(split):
        x = np.random.default_rng(samples[split]).normal(size=(samples[split], 3)).astype("float32")
        return tf.data.Dataset.from_tensor_slices((x, np.tanh(x.sum(axis=1, keepdims=True)))).shuffle(40).batch(8)
"""
SLOW = """
    import time

    def dataset(split):
        def rows():
            for _ in range(5):
                time.sleep(0.01)
                yield np.ones([8, 3]), np.ones([8, 1])
        signature = (tf.TensorSpec([8, 3]), tf.TensorSpec([8, 1]))
        return tf.data.Dataset.from_generator(rows, output_signature=signature)
"""
REPEATED = ("gradient_norm", "ema_distance")
"""What must be the same whatever interrupts a run."""


@pytest.fixture
def experiment(experiment):
    """Trains with TensorBoard's logs."""

    def train(source="", overrides=(), **options):
        sources = [source] if isinstance(source, str) else source
        return experiment(["tensorboard = True\n", *sources], overrides, **options)

    return train


class Measures(Watcher):
    def __init__(self):
        self.steps, self.epochs = [], []

    def on_steps(self, report):
        self.steps.append(report)

    def on_epoch(self, report):
        self.epochs.append(report)

    @property
    def curves(self):
        """Everything that is told by step and by epoch, except times and memory."""
        by_step = [(report.global_step, report.logs, report.learning_rate, _repeated(report)) for report in self.steps]
        return by_step, [(report.epoch, report.logs, _repeated(report)) for report in self.epochs]


def _repeated(report):
    return [report.measures[name] for name in REPEATED]


@pytest.fixture
def measured(experiment):
    """Trains, and gives the run with what was measured."""

    def train(source=NOISY, overrides=(), **options):
        watcher = Measures()
        run = experiment(source, overrides, make_watchers=lambda run, settings: [watcher], **options)
        return run, watcher

    return train


@pytest.fixture(scope="module")
def trained_before():
    return []


@pytest.fixture
def whole(measured, trained_before):
    """What was measured of a run that nothing disturbed, many steps a call; once for all tests of this file."""
    if not trained_before:
        trained_before.append(measured()[1])
    return trained_before[0]


@pytest.fixture
def steps_a_call(monkeypatch):
    def force(steps):
        monkeypatch.setattr(ChunkSize, "steps", lambda self, at_most: steps if at_most is None else min(steps, at_most))

    return force


@pytest.mark.slow
@pytest.mark.parametrize("source", [NOISY, NOISY + PIPELINE], ids=["arrays", "pipeline"])
def test_a_run_that_is_measured_ends_with_the_same_bits_as_one_that_is_not(measured, same_bits, source):
    seen, watcher = measured(source)
    unseen, nothing = measured(source, {"tensorboard": False})
    assert same_bits(seen.tensors, unseen.tensors) == []
    assert [report.logs for report in watcher.epochs] == [report.logs for report in nothing.epochs]
    assert (nothing.steps, [dict(report.measures) for report in nothing.epochs]) == ([], [{}] * 3)


@pytest.mark.slow
def test_how_many_steps_a_call_makes_does_not_change_what_is_measured(measured, whole, steps_a_call):
    steps_a_call(1)
    _, single = measured()
    assert single.curves == whole.curves
    assert [report.global_step for report in whole.steps] == [2, 4, 6, 8, 10, 12, 14]


@pytest.mark.slow
@pytest.mark.parametrize("after", [4, 5, 7])
def test_a_run_that_is_interrupted_draws_the_curves_of_one_that_is_not(measured, whole, resume, steps_a_call, after):
    steps_a_call(1)
    asked = iter([False] * after + [True])
    part, first = measured(should_stop=lambda: next(asked))
    second = Measures()
    resume(part.run.path, make_watchers=lambda run, settings: [second])
    assert (first.curves[0] + second.curves[0], first.curves[1] + second.curves[1]) == whole.curves


@pytest.mark.slow
def test_loss_is_a_mean_over_the_steps_that_it_is_told_of_and_the_norm_over_those_measured(measured):
    _, every_step = measured(NOISY, {"log_every_steps": 1})
    _, every_third = measured(NOISY, {"log_every_steps": 3})
    losses = np.array([report.logs["loss"] for report in every_step.steps])
    norms = np.array([report.measures["gradient_norm"] for report in every_step.steps])
    for steps, reports in ((3, every_third.steps), (5, every_step.epochs)):
        found = [report.logs["loss"] for report in reports]
        assert found == pytest.approx(losses.reshape(-1, steps).mean(axis=1), rel=1e-4)
    found = [report.measures["gradient_norm"] for report in every_step.epochs]
    assert found == pytest.approx(norms.reshape(-1, 5).mean(axis=1), rel=1e-6)
    found = [report.measures["gradient_norm"] for report in every_third.steps]
    assert found == pytest.approx(norms[::3], rel=1e-6)


def test_the_distance_of_the_averages_is_relative_to_the_weights(measured):
    run, watcher = measured("")  # a model whose weights are all trainable
    weights, averages = (
        np.concatenate([value.ravel() for name, value in sorted(run.tensors.items()) if name.startswith(group)])
        for group in ("model/", "averages/")
    )
    distance = np.linalg.norm(weights - averages) / np.linalg.norm(weights)
    assert watcher.epochs[-1].measures["ema_distance"] == pytest.approx(distance, rel=1e-4)


def test_without_averages_there_is_no_distance(measured):
    _, watcher = measured(NOISY, {"ema_momentum": None, "epochs": 1})
    assert "ema_distance" not in watcher.epochs[0].measures


def test_slow_data_shows_in_the_share_of_waiting_and_in_the_time_of_a_step(measured, whole):
    _, slow = measured(NOISY + SLOW)
    fast, slow = ([report.measures for report in each.epochs[1:]] for each in (whole, slow))
    shares = [[epoch["data_wait_share"] for epoch in each] for each in (fast, slow)]
    assert all(0.0 <= share <= 1.0 for each in shares for share in each), shares
    # Epochs of some milliseconds: the machine, when it pauses, spoils the figures of one.
    assert min(shares[0]) < 0.6 < max(shares[1]), shares
    assert all(epoch["step_seconds"] > 0.01 for epoch in slow), slow
    assert min(epoch["step_seconds"] for epoch in slow) < 1.0, slow


def test_memory_is_that_of_the_process_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(step_statistics.tf.config, "list_logical_devices", lambda kind: [])
    assert list(step_statistics.memory()) == ["memory_mib/process"]
    assert 50 < step_statistics.memory()["memory_mib/process"] < 1e6


def test_memory_is_told_of_each_gpu(monkeypatch):
    infos = {"GPU:0": {"current": 2**20, "peak": 2**21}, "GPU:1": {"current": 2**22, "peak": 2**23}}
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: list(infos))
    monkeypatch.setattr(tf.config.experimental, "get_memory_info", infos.get)
    assert step_statistics.memory() == {
        "memory_mib/gpu_0": 1.0,
        "memory_mib/gpu_0_peak": 2.0,
        "memory_mib/gpu_1": 4.0,
        "memory_mib/gpu_1_peak": 8.0,
    }


def test_after_a_divergence_it_is_told_where_training_goes_on(experiment):
    told = []

    class Returns(Watcher):
        def on_steps(self, report):
            told.append(report.global_step)

        def on_rollback(self, to):
            told.append((to.epoch, to.step, to.global_step))

    source = """
    class Explode(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.first_rate = float(self.model.optimizer.learning_rate)

        def on_train_batch_end(self, batch, logs=None):
            optimizer = self.model.optimizer  # its rate is lower after the first time; a flag would be put back
            if optimizer.iterations == 9 and optimizer.learning_rate == self.first_rate:
                self.model.layers[-1].bias.assign([float("inf")])

    callbacks = [Explode()]
    """
    overrides = {"on_nan": "reload", "checkpoint_every_steps": 7}
    experiment([NOISY, source], overrides, make_watchers=lambda run, settings: [Returns()])
    assert told == [2, 4, 6, 8, (2, 2, 7), 8, 10, 12, 14]


@pytest.mark.parametrize(
    ("steps", "log_every_steps", "accumulated", "every"),
    [
        (100, None, None, 10),
        (4, None, None, 4),
        (100, 3, None, 3),
        (None, None, None, 1),
        (40, None, 8, 5),
        (4, 2, 8, 1),
    ],
)
def test_each_epoch_and_each_point_has_an_update_that_is_measured(steps, log_every_steps, accumulated, every):
    model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1)])
    settings = SimpleNamespace(
        tensorboard=True,
        log_every_steps=log_every_steps,
        gradient_accumulation_steps=accumulated,
        jit_compile=False,
    )
    meter = step_statistics.Meter(SimpleNamespace(settings=settings, model=model, train=SimpleNamespace(steps=steps)))
    assert meter.gradient_norm._every == every
