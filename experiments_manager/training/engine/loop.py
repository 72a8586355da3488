"""The story of a run: epochs of steps, each epoch validated and judged, and what follows from that.

    for each epoch
        open the data at the place reached
        while there are steps left          many steps a call; signals, checkpoints and news between the calls
        with the averaged weights in place
            validate
            judge: better than the best so far? then keep these weights and hand them to the publisher
        user callbacks, learning rate, early stopping
        report to the watchers; checkpoint

Everything that decides how the story goes on is in `TrainingState`, so it can be told from any step boundary again.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

import numpy as np
import tensorflow as tf

from experiments_manager.events import EpochReport, Progress, StepReport
from experiments_manager.training.engine.completion import STOPPED_BY_CALLBACK
from experiments_manager.training.engine.context import Interrupted, Job
from experiments_manager.training.engine.failures import explained
from experiments_manager.training.engine.recovery import reload_after_divergence
from experiments_manager.training.engine.step_hooks import (
    between_calls,
    checkpoint,
    checkpoint_on_interrupt,
    heed_signals,
    publish,
    steps_to_next_stop,
    tell_news,
)
from experiments_manager.training.engine.steps import as_numbers
from experiments_manager.training.engine.validation import run_test_steps
from experiments_manager.training.errors import DataError, DivergedError
from experiments_manager.training.feeds.feed import Feed, Shape
from experiments_manager.training.setup.experiment import Experiment
from experiments_manager.training.state.monitor import judge_epoch

SECONDS_BETWEEN_EPOCH_CHECKPOINTS = 2.0


def train_epochs(job: Job) -> None:
    """Trains until the last epoch, early stopping, or a callback's word.

    Raises:
        Interrupted: If `should_stop` said so; a checkpoint of that very step is on its way to the disk.
        DivergedError: If the loss is not finite, and the settings do not say to go back.
        TrainingError: If the data or an operation fails.
    """
    experiment, state = job.experiment, job.experiment.state
    job.callbacks.begin()
    if experiment.settings.on_nan == "reload" and state.progress.global_step == 0:
        checkpoint(job)  # so that there is always one to go back to
    while state.progress.epoch < experiment.settings.epochs and state.progress.stop_reason is None:
        started = time.monotonic()
        try:
            with explained(experiment), checkpoint_on_interrupt(job):
                logs = _train_epoch(job)
                rate = state.learning_rate
                logs |= _validate_and_judge(job, logs)
        except DivergedError as error:
            reload_after_divergence(job, error)
            continue
        _finish_epoch(job, logs, rate, time.monotonic() - started)
    job.callbacks.list.on_train_end(state.progress.last_logs)
    if state.progress.best is None and state.progress.epoch:
        job.tell("on_message", f"{experiment.judge.monitor} was never a finite number, so no epoch is the best.")


def _train_epoch(job: Job) -> dict[str, float]:
    """Trains the epoch from the step reached on; returns its loss and metrics."""
    experiment, state = job.experiment, job.experiment.state
    progress, feed = state.progress, experiment.train
    if progress.step == 0:
        job.reset_metrics()
        job.meter.begin_epoch()
        if job.callbacks:
            job.callbacks.list.on_epoch_begin(progress.epoch)
    source = feed.open(progress.epoch, progress.step)
    logs: dict[str, tf.Tensor] = {}
    while feed.steps is None or progress.step < feed.steps:
        between_calls(job)
        first = progress.step
        last = first + job.pace.steps(steps_to_next_stop(job))
        last = last if feed.steps is None else min(last, feed.steps)
        source, latest, ended = _call(job, source, first, last)
        logs = latest if progress.step > first else logs
        if ended:
            break
    if not logs:  # resumed between the last step and the validation
        logs = experiment.model.get_metrics_result()
    if progress.step == 0:
        raise DataError(
            "dataset: the train split gave no batch. Expected at least one. Look at what `dataset` returns."
        )
    job.meter.end_steps()
    return as_numbers(logs)


def _call(job: Job, source: Any, first: int, last: int) -> tuple[Any, dict[str, tf.Tensor], bool]:
    """One call of the compiled loop and the bookkeeping after it; gives source, logs, and whether the epoch ends."""
    experiment, progress, feed = job.experiment, job.experiment.state.progress, job.experiment.train
    if job.callbacks.want_batches:
        last = first + 1
        job.callbacks.list.on_train_batch_begin(first)
    began = time.perf_counter()
    with job.pace.measured(last - first):
        steps = job.train_steps(source, first, last, job.meter.tally)
    job.meter.took(steps.done - first, time.perf_counter() - began, steps.tally)
    progress.step, progress.global_step = steps.done, progress.global_step + steps.done - first
    feed.took(steps.done - first)
    if not steps.finite:
        raise _diverged(experiment, progress.global_step)
    if job.callbacks.want_batches and not steps.exhausted:
        job.callbacks.list.on_train_batch_end(first, as_numbers(steps.logs))
    job.tell(
        "on_progress",
        Progress(
            epoch=progress.epoch + 1,
            step=progress.step,
            global_step=progress.global_step,
            steps_per_epoch=feed.steps,
            read_logs=lambda: as_numbers(steps.logs),
        ),
    )
    if job.meter.is_due() and steps.done > first:
        _report_steps(job, as_numbers(steps.logs))
    if steps.exhausted and feed.goes_on and steps.done < feed.steps:
        return _next_pass(feed, steps.done - first), steps.logs, False
    return source, steps.logs, steps.exhausted or job.callbacks.stop_training


def _report_steps(job: Job, logs: dict[str, float]) -> None:
    state, progress = job.experiment.state, job.experiment.state.progress
    logs, measures = job.meter.of_recent_steps(logs)
    job.tell("on_steps", StepReport(progress.epoch + 1, progress.global_step, logs, state.learning_rate, measures))


def _next_pass(feed: Feed, steps_of_this_pass: int) -> Any:
    if steps_of_this_pass == 0 and feed.position()["taken"] == 0:
        raise DataError(
            f"dataset: the {feed.split} pipeline gives no batch. Expected at least one. Look at what `dataset` returns."
        )
    return feed.next_pass()


def _diverged(experiment: Experiment, step: int) -> DivergedError:
    return DivergedError(
        f"loss: it is NaN or infinite after step {step} (batch: {Shape.of(experiment.train.spec).text}). "
        "Expected a finite number. Lower `learning_rate`, set `gradient_clip_norm`, or look for such values in the "
        "data.",
        step,
    )


def _validate_and_judge(job: Job, logs: dict[str, float]) -> dict[str, float]:
    """Validates with the averaged weights and keeps them if they are the best; returns the `val_` values."""
    state = job.experiment.state
    kept = state.keep_transient()  # an interrupted validation leaves no trace
    with state.averages.in_place() if state.averages else contextlib.nullcontext():
        try:
            values = _validate(job)
        except Interrupted:
            state.restore_transient(kept)
            raise
        _judge(job, logs | values)
        job.user_logs.write(state.progress.epoch, logs | values)
        _show(job, logs | values)
    return values


def _validate(job: Job) -> dict[str, float]:
    feed, loop = job.experiment.validation, job.test_steps
    if feed is None or loop is None:
        return {}
    job.reset_metrics()
    job.callbacks.list.on_test_begin()
    values = run_test_steps(
        loop,
        feed,
        job.experiment.state.progress.epoch,
        job.validation_pace,
        between_calls=lambda: heed_signals(job),
        batch_callbacks=job.callbacks.list if job.callbacks.want_test_batches else None,
    )
    job.callbacks.list.on_test_end(values)
    return {f"val_{name}": value for name, value in values.items()}


def _show(job: Job, logs: dict[str, float]) -> None:
    """Lets the watchers look at the model, with the averaged weights and the metrics of the validation in place."""
    progress, validated = job.experiment.state.progress, job.experiment.validation is not None
    job.tell("on_validated", job.viewer.view(progress.epoch, progress.global_step, logs, validated=validated))


def _judge(job: Job, logs: dict[str, float]) -> None:
    """Compares the epoch with the best; called with the averaged weights in place, which are kept if better."""
    state, progress = job.experiment.state, job.experiment.state.progress
    progress.epoch, progress.step = progress.epoch + 1, 0
    verdict = judge_epoch(job.experiment.judge, progress, logs)
    progress.stop_reason = verdict.stop_reason
    if verdict.improved:
        state.best_weights = state.weights()
        publish(job)
    if verdict.lower_learning_rate:
        _lower_learning_rate(job)


def _lower_learning_rate(job: Job) -> None:
    settings, optimizer = job.experiment.settings, job.experiment.model.optimizer
    rate = job.experiment.state.learning_rate
    lower = max(rate * settings.reduce_lr_factor, settings.min_learning_rate)
    if np.float32(lower) < np.float32(rate):
        optimizer.learning_rate = lower
        job.tell("on_message", f"Learning rate lowered from {rate:g} to {lower:g}.")


def _finish_epoch(job: Job, logs: dict[str, float], rate: float, seconds: float) -> None:
    """What follows an epoch: callbacks, report, checkpoint."""
    experiment, progress = job.experiment, job.experiment.state.progress
    experiment.train.close_epoch()
    job.meter.end_epoch()
    if job.callbacks:
        with job.user_logs.around_callbacks(progress.epoch):
            job.callbacks.list.on_epoch_end(progress.epoch - 1, dict(logs))
        if job.callbacks.stop_training and progress.stop_reason is None:
            progress.stop_reason = STOPPED_BY_CALLBACK
    progress.last_logs = logs
    improved = progress.best is not None and progress.best.step == progress.global_step
    measures = job.meter.of_epoch()
    report = EpochReport(progress.epoch, progress.global_step, logs, rate, seconds, improved, measures)
    job.tell("on_epoch", report)
    tell_news(job)
    age = time.monotonic() - job.checkpoints.last_written
    if age > SECONDS_BETWEEN_EPOCH_CHECKPOINTS:
        checkpoint(job)
