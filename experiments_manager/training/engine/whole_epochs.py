"""An epoch in one call of the graph, for small nets on arrays in memory, where nobody looks at what is between.

The loop goes back to Python a dozen times an epoch: to reset the metrics, put the data into order, train, exchange
weights and averages, validate, copy the weights. Each time costs a tenth of a millisecond or more, which for a small
net is nine tenths of an epoch. Here the same functions run in the same order in one call, so that the bits are the
same, and it does not matter for which epochs that is done.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from experiments_manager.training.engine.chunks import ChunkSize
from experiments_manager.training.engine.failures import diverged
from experiments_manager.training.engine.steps import CompiledLoops
from experiments_manager.training.engine.user_callbacks import UserCallbacks
from experiments_manager.training.observe.step_statistics import Meter, StepStatistics
from experiments_manager.training.setup.experiment import Experiment
from experiments_manager.training.setup.metrics import flat_logs, resets_by_python

EPOCHS_THAT_REPAY = 100
"""Epochs ahead for which the call is traced; that takes some tenths of a second."""


@dataclasses.dataclass(frozen=True)
class Validated:
    """What a validation came to that ran in the same call as the training."""

    values: dict[str, float]
    """By name, with the prefix `val_`."""
    weights: list[tf.Tensor]
    """A copy of the weights that were validated."""
    ema_distance: float
    """How far the averages were from the weights; see `Averages.distance`."""


class WholeEpochs:
    """Trains and validates epochs in one call each.

    Args:
        experiment: What is trained; see `suits`.
        loops: Those of the experiment.
        meter: Takes note of the steps.
    """

    def __init__(self, experiment: Experiment, loops: CompiledLoops, meter: Meter) -> None:
        self._experiment, self._loops, self._meter = experiment, loops, meter
        self._names: tuple[list[str], list[str]] = [], []
        self._traced = False
        self._epoch = tf.function(self._in_graph, autograph=False)

    @staticmethod
    def suits(experiment: Experiment, callbacks: UserCallbacks, meter: Meter, processes: int) -> bool:
        """Return whether nothing and nobody has to see the run, one of so many processes, within its epochs."""
        settings = experiment.settings
        feeds = [feed for feed in (experiment.train, experiment.validation) if feed is not None]
        return (
            all(feed.in_memory and feed.whole_batches for feed in feeds)
            and processes == 1
            and tf.distribute.get_strategy().num_replicas_in_sync == 1
            and not callbacks.see_within_epochs
            and not resets_by_python(experiment.model)
            and not settings.prequential
            and settings.checkpoint_every_steps is None
            and not meter.log_every_steps
        )

    def is_due(self, chunk_size: ChunkSize, validation_chunk_size: ChunkSize) -> bool:
        """Return whether the epoch that begins is a short one, and there are enough to repay the tracing."""
        experiment, progress = self._experiment, self._experiment.state.progress
        validation = experiment.validation
        is_short = chunk_size.steps(None) >= experiment.train.steps and (
            validation is None or validation_chunk_size.steps(None) >= validation.steps
        )
        repaid = self._traced or experiment.settings.epochs - progress.epoch >= EPOCHS_THAT_REPAY
        return is_short and repaid and progress.step == 0

    def train(self) -> tuple[dict[str, float], Validated]:
        """Train the epoch from its beginning, and validate.

        Returns:
            Its loss and metrics, and what the validation came to.

        Raises:
            DivergedError: The loss is not finite.
        """
        progress, steps = self._experiment.state.progress, self._experiment.train.steps
        self._traced = True
        record, norms, weights = self._epoch(tf.constant(progress.epoch, tf.int64), self._meter.statistics)
        done, finite, seconds, distance, *values = record.numpy().tolist()
        progress.step, progress.global_step = int(done), progress.global_step + int(done)
        if not finite:
            raise diverged(self._experiment, progress.global_step)
        statistics = StepStatistics(norms, tf.constant(0.0, tf.float64)) if self._meter.statistics else ()
        self._meter.took(steps, seconds, statistics)
        names, validation_names = self._names
        logs = dict(zip(names, values, strict=False))
        validated = {f"val_{name}": value for name, value in zip(validation_names, values[len(names) :], strict=True)}
        return logs, Validated(validated, weights, distance)

    def _in_graph(self, epoch: tf.Tensor, statistics: Any) -> tuple[tf.Tensor, Any, list[tf.Tensor]]:
        """Return a record of numbers, the norms of the gradient, and the weights that were validated."""
        model, averages, train = self._experiment.model, self._experiment.state.averages, self._experiment.train
        model.reset_metrics()
        source = train.in_order(epoch)
        began = _clock(source)
        with tf.control_dependencies([began]):
            source = tf.nest.map_structure(lambda leaf: leaf if leaf is None else tf.identity(leaf), source)
        first, last = tf.constant(0), tf.constant(train.steps)
        done, _, finite, logs, statistics = self._loops.train.in_graph(source, first, last, statistics)
        seconds = _clock([done, logs]) - began
        distance = averages.relative_distance() if averages else tf.constant(0.0)
        with averages.swapped_in_graph() if averages else contextlib.nullcontext():
            validated = self._validate()
            weights = [tf.identity(variable.value) for variable in model.variables]
        names, numbers = _flat(logs)
        validation_names, validation_numbers = _flat(validated)
        self._names = names, validation_names
        head = [tf.reshape(tf.cast(value, tf.float64), [1]) for value in (done, finite, seconds, distance)]
        return tf.concat([*head, *numbers, *validation_numbers], 0), statistics and statistics.norms, weights

    def _validate(self) -> Mapping[str, tf.Tensor]:
        feed = self._experiment.validation
        if feed is None:
            return {}
        self._experiment.model.reset_metrics()
        source = feed.in_order(tf.constant(0, tf.int64))
        return self._loops.validation.in_graph(source, tf.constant(0), tf.constant(feed.steps), ())[3]


def _clock(after: Any) -> tf.Tensor:
    """In the graph: the time in seconds, once these are there."""
    with tf.control_dependencies([leaf for leaf in tf.nest.flatten(after) if leaf is not None]):
        return tf.timestamp()


def _flat(logs: Mapping[str, Any]) -> tuple[list[str], list[tf.Tensor]]:
    """In the graph: the names and values of logs, as `as_numbers` reads them: one each, or `name_0`, `name_1`, …"""
    names, numbers = [], []
    for name, tensor in flat_logs(logs).items():
        count = int(np.prod(tensor.shape.as_list()))
        names += [f"{name}_{number}" for number in range(count)] if tensor.shape.rank else [name]
        numbers.append(tf.reshape(tf.cast(tensor, tf.float64), [count]))
    return names, numbers
