"""The story of a run: epochs of steps, each epoch validated and compared with the best, and what follows from that.

    for each epoch
        open the data at the place reached
        while there are steps left          many steps a call; signals, checkpoints and events between the calls
        with the averaged weights in place
            validate
            the monitor decides: better than the best so far? then keep these weights and hand them to the publisher
            lower the learning rate, stop early
        user callbacks
        report to the watchers; checkpoint

Everything that decides how the run goes on is in `TrainingState`, so it can go on after any step.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from experiments_manager.events import EpochReport, Progress, StepReport
from experiments_manager.kafka.errors import PartitionsLostError
from experiments_manager.training.engine.chunks import run_test_steps, source_after, train_chunk
from experiments_manager.training.engine.completion import STOPPED_BY_CALLBACK
from experiments_manager.training.engine.context import Interrupted, TrainingContext
from experiments_manager.training.engine.failures import diverged, translating_errors
from experiments_manager.training.engine.recovery import go_back_to_checkpoint, reload_after_divergence
from experiments_manager.training.engine.step_hooks import (
    after_chunk,
    checkpoint,
    checkpoint_on_interrupt,
    flush_events,
    hand_over,
    look_for_changes,
    poll_signals,
    publish,
    publish_later,
    ready_batches,
    steps_to_next_stop,
    users_now,
)
from experiments_manager.training.engine.whole_epochs import Validated
from experiments_manager.training.errors import DataError, DivergedError, StreamEndedError
from experiments_manager.training.observe.prequential import loss_drift
from experiments_manager.training.setup.metrics import as_numbers
from experiments_manager.training.state.monitor import decide

SECONDS_BETWEEN_EPOCH_CHECKPOINTS = 2.0


def train_epochs(context: TrainingContext) -> None:
    """Train until the last epoch, early stopping, or a callback that stops it.

    Raises:
        Interrupted: If `should_stop` said so; a checkpoint of that very step is on its way to the disk.
        DivergedError: If the loss is not finite, and the settings do not say to go back.
        TrainingError: If the data or an operation fails.
    """
    experiment, state = context.experiment, context.experiment.state
    if experiment.settings.on_nan == "reload" and state.progress.global_step == 0:
        checkpoint(context)  # so that there is always one to go back to
    while state.progress.epoch < experiment.settings.epochs and state.progress.stop_reason is None:
        started = time.monotonic()
        try:
            with translating_errors(experiment), checkpoint_on_interrupt(context):
                logs, validated = _trained_epoch(context)
                rate = state.learning_rate
                logs |= _validate_and_decide(context, context.membership.team.chiefs(logs), validated)
        except DivergedError as error:
            reload_after_divergence(context, error)
            continue
        except PartitionsLostError as error:
            go_back_to_checkpoint(context, error)
            continue
        except StreamEndedError as error:
            state.progress.stop_reason = str(error)
            break
        _finish_epoch(context, logs, rate, time.monotonic() - started)
    context.callbacks.list.on_train_end(state.progress.last_logs)
    if state.progress.best is None and state.progress.epoch:
        context.dispatch(
            "on_message", f"{experiment.monitor.name} was never finite, so there is no best {context.unit}."
        )


def _trained_epoch(context: TrainingContext) -> tuple[dict[str, float], Validated | None]:
    """Train the epoch; return its loss and metrics, and the validation where one call did both."""
    if context.epoch_trainer is not None:
        return context.epoch_trainer.train_epoch(context), None
    whole = context.whole_epochs
    if whole is None or not whole.is_due(context.chunk_size, context.validation_chunk_size):
        return _train_epoch(context), None
    after_chunk(context)
    progress = context.experiment.state.progress
    progress.begun = True
    context.meter.begin_epoch()
    context.callbacks.list.on_epoch_begin(progress.epoch)
    logs, validated = whole.train()
    if not context.callbacks:  # which may change the weights before the distance is told
        context.meter.ema_distance = validated.ema_distance
    _dispatch_progress(context, lambda: logs)
    return logs, validated


def _train_epoch(context: TrainingContext) -> dict[str, float]:
    """Train the epoch from the step reached on; return its loss and metrics."""
    experiment, state = context.experiment, context.experiment.state
    progress, feed = state.progress, experiment.train
    if progress.step == 0:
        context.meter.begin_epoch()
    if not feed.never_ends:
        _begin_epoch(context)
    source = feed.open(progress.epoch, progress.step)
    logs: dict[str, tf.Tensor] = {}
    while feed.steps is None or progress.step < feed.steps:
        after_chunk(context)
        first = progress.step
        wanted = context.chunk_size.steps(steps_to_next_stop(context))
        wanted = wanted if feed.steps is None else min(wanted, feed.steps - first)
        ready = ready_batches(context, wanted)
        if ready == 0:
            source = hand_over(context)
            continue
        if feed.end_reason is None:  # callbacks are told of no epoch without a batch
            _begin_epoch(context)
        last = first + ready
        source, latest, ended = _train_chunk(context, source, first, last)
        logs = latest if progress.step > first else logs
        if ended:
            break
    if not logs and progress.step:  # resumed between the last step and the validation
        logs = experiment.model.get_metrics_result()
    if progress.step == 0 and feed.end_reason is not None:
        raise StreamEndedError(feed.end_reason)
    if progress.step == 0:
        raise DataError("dataset: the train split gave no batch. Expected at least one. Check what `dataset` returns.")
    context.meter.end_steps()
    if context.user_state is not None:
        context.user_state.has_read()
    return as_numbers(logs)


def _begin_epoch(context: TrainingContext) -> None:
    """Reset the metrics and tell the callbacks; once, though a checkpoint may lie before the first step."""
    progress = context.experiment.state.progress
    if progress.begun or progress.step > 0:
        return
    progress.begun = True
    context.reset_metrics()
    if context.loops.prequential is not None:
        context.loops.prequential.reset()
    context.callbacks.list.on_epoch_begin(progress.epoch)


def _train_chunk(
    context: TrainingContext, source: Any, first: int, last: int
) -> tuple[Any, dict[str, tf.Tensor], bool]:
    """Call the compiled loop once and take note of what it did; return source, logs, and whether the epoch ends."""
    experiment, progress, feed = context.experiment, context.experiment.state.progress, context.experiment.train
    steps = train_chunk(
        context.loops, feed, context.callbacks, context.chunk_size, source, first, last, context.meter.statistics
    )
    context.meter.took(steps.done - first, context.chunk_size.seconds, steps.statistics)
    progress.step, progress.global_step = steps.done, progress.global_step + steps.done - first
    if not steps.finite:
        raise diverged(experiment, progress.global_step)
    _dispatch_progress(context, lambda: as_numbers(steps.logs))
    if context.meter.is_due() and steps.done > first:
        _report_steps(context, as_numbers(steps.logs))
    source, ends = source_after(feed, source, first, steps)
    return source, steps.logs, ends or (not steps.exhausted and _stopped_by_callback(context))


def _dispatch_progress(context: TrainingContext, read_logs: Callable[[], dict[str, float]]) -> None:
    progress, steps = context.experiment.state.progress, context.experiment.train.steps
    context.dispatch("on_progress", Progress(progress.epoch + 1, progress.step, progress.global_step, steps, read_logs))


def _stopped_by_callback(context: TrainingContext) -> bool:
    """Return whether a callback set `model.stop_training`, in any process of the training."""
    return bool(context.callbacks) and context.membership.team.any(context.callbacks.stop_training)


def _report_steps(context: TrainingContext, logs: dict[str, float]) -> None:
    state, progress = context.experiment.state, context.experiment.state.progress
    logs, measures = context.meter.of_recent_steps(logs)
    context.dispatch(
        "on_steps", StepReport(progress.epoch + 1, progress.global_step, logs, state.learning_rate, measures)
    )


def _validate_and_decide(
    context: TrainingContext, logs: dict[str, float], validated: Validated | None = None
) -> dict[str, float]:
    """Validate with the averaged weights and keep them if they are the best; return the `val_` values."""
    state = context.experiment.state
    if validated is not None:
        _apply_decision(context, logs | validated.values, validated.weights)
        if context.user_logs.wanted:
            with state.averages_in_place():
                context.user_logs.write(state.progress.epoch, logs | validated.values)
        _dispatch_view(context, logs | validated.values, state.averages_in_place)
        return validated.values
    kept = state.keep_transient()  # an interrupted validation leaves no trace
    with state.averages_in_place():
        context.before_validation = users_now(context)
        try:
            values = _validate(context)
        except Interrupted:
            state.restore_transient(kept)
            raise
        context.before_validation = None
        values = context.membership.team.chiefs(values)
        _apply_decision(context, logs | values)
        context.user_logs.write(state.progress.epoch, logs | values)
        _dispatch_view(context, logs | values)
    return values


def _validate(context: TrainingContext) -> dict[str, float]:
    feed, loop = context.experiment.validation, context.loops.validation
    if feed is None or loop is None:
        return {}
    context.reset_metrics()
    context.callbacks.list.on_test_begin()
    values = run_test_steps(
        loop,
        feed,
        context.experiment.state.progress.epoch,
        context.validation_chunk_size,
        after_chunk=lambda: poll_signals(context),
        batch_callbacks=context.callbacks.list if context.callbacks.want_test_batches else None,
    )
    context.callbacks.list.on_test_end(values)
    return {f"val_{name}": value for name, value in values.items()}


def _dispatch_view(
    context: TrainingContext,
    logs: dict[str, float],
    in_place: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> None:
    """Let the watchers look at the model, with the averaged weights and the metrics of the validation.

    `in_place` brings the averaged weights into the model once somebody looks, where they are not there.
    """
    progress = context.experiment.state.progress
    # Sums of metrics are shared out among processes, and a watcher of one cannot ask the others for theirs.
    validated = context.experiment.validation is not None and context.membership.team.size == 1
    context.dispatch(
        "on_validated",
        context.viewer.view(progress.epoch, progress.global_step, logs, validated=validated, in_place=in_place),
    )


def _apply_decision(context: TrainingContext, logs: dict[str, float], copied: list[tf.Tensor] | None = None) -> None:
    """Compare the epoch with the best, and keep the weights in place, the averaged ones, if it is better.

    Args:
        context: Of the run.
        logs: Loss and metrics of the epoch.
        copied: These weights, where they are not in place any more.
    """
    state, progress = context.experiment.state, context.experiment.state.progress
    progress.epoch, progress.step, progress.begun = progress.epoch + 1, 0, False
    decision = decide(context.experiment.monitor, progress, logs, context.unit)
    progress.stop_reason = decision.stop_reason
    if decision.improved:
        state.best_weights = state.weights() if copied is None else copied
        if copied is None:
            publish(context)
        else:
            publish_later(context)
    if decision.lower_learning_rate:
        _lower_learning_rate(context)


def _lower_learning_rate(context: TrainingContext) -> None:
    settings, optimizer = context.experiment.settings, context.experiment.model.optimizer
    rate = context.experiment.state.learning_rate
    lower = max(rate * settings.reduce_lr_factor, settings.min_learning_rate)
    if np.float32(lower) < np.float32(rate):
        optimizer.learning_rate = lower
        context.dispatch("on_message", f"Learning rate lowered from {rate:g} to {lower:g}.")


def _finish_epoch(context: TrainingContext, logs: dict[str, float], rate: float, seconds: float) -> None:
    """Do what follows an epoch: callbacks, report, checkpoint."""
    experiment, progress = context.experiment, context.experiment.state.progress
    measures = experiment.train.measures()
    if experiment.train.never_ends:
        measures |= loss_drift(progress, logs)
    experiment.train.close_epoch()
    if context.user_state is not None and not experiment.train.goes_on:
        context.user_state.closes_pass()
    context.meter.end_epoch()
    if context.callbacks:
        with context.user_logs.around_callbacks(progress.epoch):
            context.callbacks.list.on_epoch_end(progress.epoch - 1, dict(logs))
        if _stopped_by_callback(context) and progress.stop_reason is None:
            progress.stop_reason = STOPPED_BY_CALLBACK
    progress.stop_reason = progress.stop_reason or experiment.train.end_reason
    progress.last_logs = logs
    improved = progress.best is not None and progress.best.step == progress.global_step
    measures = context.meter.of_epoch() | measures
    best = progress.reached(experiment.monitor.name)["best"]
    report = EpochReport(progress.epoch, progress.global_step, logs, rate, seconds, improved, measures, best)
    context.dispatch("on_epoch", report)
    look_for_changes(context)
    flush_events(context)
    age = time.monotonic() - context.checkpoints.last_written
    if context.membership.team.chiefs(age > SECONDS_BETWEEN_EPOCH_CHECKPOINTS):
        checkpoint(context)
