"""Evaluating a finished run on any split, with the best weights that it kept."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments_manager.runs import Run
from experiments_manager.runs.run_settings import load_run_settings, warn_altered_files, weights_of
from experiments_manager.settings import Settings
from experiments_manager.settings.hook_directory import session_folder, working_directory
from experiments_manager.training.devices.devices import prepared_devices
from experiments_manager.training.engine.chunks import ChunkSize, run_test_steps
from experiments_manager.training.engine.failures import translating_errors
from experiments_manager.training.engine.outcome import attributed_to_hooks
from experiments_manager.training.engine.steps import CompiledLoop, CompiledLoops
from experiments_manager.training.errors import TrainingError
from experiments_manager.training.feeds.feed import Feed, x_and_y
from experiments_manager.training.setup.datasets import feed_for
from experiments_manager.training.setup.experiment import Experiment, build_experiment
from experiments_manager.training.setup.fitting import refuse_misfits
from experiments_manager.training.state.checkpoints import read_latest


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How good a run's best weights are on a split."""

    metrics: dict[str, float]
    """Loss and metrics."""
    samples: int
    epoch: int
    """The epoch whose weights these are, counted from 1."""
    truth: np.ndarray | None = None
    """True classes, int `[samples]`, where the model tells one class a sample."""
    predicted: np.ndarray | None = None
    """Predicted classes, int `[samples]`."""
    class_names: list[str] | None = None


def evaluate_run(run: Run, split: str = "test") -> Evaluation:
    """Evaluate the best weights of a run.

    Args:
        run: A run with at least one checkpoint; of a client of a federation, the best global weights are evaluated on
            the client's own data.
        split: `train`, `validation` or `test`.

    Returns:
        Metrics and, for a classification, true and predicted classes.

    Raises:
        TrainingError: If the run has no checkpoint, or the `dataset` hook gives nothing for the split.
        UserCodeError: If a hook raises.
    """
    with best_experiment(run) as (experiment, epoch):
        settings, model = experiment.settings, experiment.model
        with contextlib.closing(split_feed(settings, split, run)) as feed, translating_errors(experiment):
            refuse_misfits(settings, model, feed, getattr(model, "loss", None))
            model.reset_metrics()
            metrics = run_test_steps(CompiledLoop.for_evaluation(experiment, feed), feed, 0, ChunkSize())
            truth, predicted, samples = _classes(model, feed)
    return Evaluation(metrics, samples, epoch, truth, predicted, _names(settings, predicted))


@contextlib.contextmanager
def best_experiment(run: Run) -> Iterator[tuple[Experiment, int]]:
    """Build the experiment of a run with its best weights; gives it, and the epoch that these are of.

    Args:
        run: As for `evaluate_run`; of a client of a federation, with the settings of that client.

    Raises:
        TrainingError: As for `evaluate_run`.
        UserCodeError: If a hook raises.
    """
    run, overrides = weights_of(run)
    settings = load_run_settings(run, overrides)
    warn_altered_files(run)
    with (
        attributed_to_hooks(settings),
        prepared_devices(settings) as devices,
        working_directory(settings, session_folder(settings, run.path)),
    ):
        experiment = build_experiment(settings, devices, run, with_export=False, follow=False)
        yield experiment, _use_best_weights(experiment, run)


def split_feed(settings: Settings, split: str, run: Run) -> Feed:
    """Return the data of a split of the experiment of a run.

    Raises:
        TrainingError: If there is none.
    """
    feed = feed_for(settings, split, weights_of(run)[0], follow=False)
    if feed is None:
        raise TrainingError(
            f"{settings.location('dataset')}: dataset: there is no {split} split. "
            f'Expected data for `dataset("{split}")`, got None. Return the data, or name another split.'
        )
    return feed


def _use_best_weights(experiment: Experiment, run: Run) -> int:
    found = read_latest(run.checkpoints_dir)
    if found is None:
        raise TrainingError(
            f"{run.path} has no checkpoint. Expected a run with at least one. Resume it, or start a new run."
        )
    state = experiment.state
    is_traced = any(name.startswith("captured/") for name in found[1].tensors)
    loops = CompiledLoops.of(experiment) if is_traced else None  # these variables only the traced steps know
    state.restore(found[1])
    del loops
    if state.best_weights is not None:
        state.assign_weights(state.best_weights)
        return state.progress.best.epoch
    if state.averages is not None:  # no epoch ended yet
        for weight, average in zip(state.averages.weights, state.averages.averages, strict=True):
            weight.assign(average)
    return state.progress.epoch


def _classes(model: keras.Model, feed: Feed) -> tuple[np.ndarray | None, np.ndarray | None, int]:
    """Return true and predicted classes over the split, where x goes to one row of class scores and y is one class."""
    predict = tf.function(lambda x: model(x, training=False), autograph=False, reduce_retracing=True)
    truths, predictions, samples, told = [], [], 0, isinstance(feed.spec, tuple) and len(feed.spec) > 1
    dataset = feed.as_dataset()
    for batch in dataset if feed.steps is None else dataset.take(feed.steps):
        x, y = x_and_y(batch)
        samples += int(tf.shape(tf.nest.flatten(x)[0])[0])
        if not told:
            continue
        scores = predict(x)
        told = _is_class(y, scores)
        if told:
            truths.append(np.argmax(y, -1) if y.shape.rank == 2 and y.shape[-1] > 1 else np.reshape(y, [-1]))
            predictions.append(np.argmax(scores, -1))
    if not told or not truths:
        return None, None, samples
    return np.concatenate(truths).astype(np.int64), np.concatenate(predictions).astype(np.int64), samples


def _is_class(y: Any, scores: Any) -> bool:
    if tf.nest.is_nested(scores) or tf.nest.is_nested(y) or y is None or scores.shape.rank != 2 or scores.shape[-1] < 2:
        return False
    if y.shape.rank == 2 and y.shape[-1] == scores.shape[-1]:
        return bool(tf.reduce_all(tf.reduce_sum(tf.cast(y, tf.float32), -1) == 1.0))
    return y.dtype.is_integer and (y.shape.rank == 1 or y.shape[-1] == 1)


def _names(settings: Settings, predicted: np.ndarray | None) -> list[str] | None:
    return list(settings.class_names) if predicted is not None and settings.class_names else None
