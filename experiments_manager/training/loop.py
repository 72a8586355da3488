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
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from experiments_manager.export.publisher import Publisher
from experiments_manager.runs import Run
from experiments_manager.training.building import Experiment
from experiments_manager.training.checkpoints import CheckpointWriter, extras_for
from experiments_manager.training.errors import DataError, DivergedError
from experiments_manager.training.events import EpochReport, Progress, VersionPublished, Watcher
from experiments_manager.training.failures import explained
from experiments_manager.training.feeds import Feed
from experiments_manager.training.pace import Pace
from experiments_manager.training.recovery import reload_after_divergence
from experiments_manager.training.steps import CompiledLoop, as_numbers, test_one, train_one
from experiments_manager.training.stopping import judge_epoch
from experiments_manager.training.user_callbacks import UserCallbacks

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_EPOCH_CHECKPOINTS = 2.0
STOPPED_BY_CALLBACK = "a callback stopped training"


class Interrupted(Exception):
    """Training was asked to stop; raised at a step boundary, from which it can go on."""


@dataclasses.dataclass
class Job:
    """Everything that the loop works with."""

    experiment: Experiment
    run: Run
    callbacks: UserCallbacks
    checkpoints: CheckpointWriter
    publisher: Publisher | None
    watchers: list[Watcher]
    should_stop: Callable[[], bool]
    train_steps: CompiledLoop
    test_steps: CompiledLoop | None
    reset_metrics: Callable[[], None]
    pace: Pace = dataclasses.field(default_factory=Pace)
    validation_pace: Pace = dataclasses.field(default_factory=Pace)
    last_checkpoint_step: int = -1

    @classmethod
    def make(cls, experiment: Experiment, **parts: Any) -> Job:
        """Compiles the loops for an experiment."""
        model, state, jit = experiment.model, experiment.state, experiment.settings.jit_compile
        one = train_one(model, state.step, state.averages, experiment.class_weight)
        validation = experiment.validation
        return cls(
            experiment=experiment,
            train_steps=CompiledLoop(model, one, experiment.train, jit_compile=jit),
            test_steps=CompiledLoop(model, test_one(model), validation, jit_compile=jit) if validation else None,
            reset_metrics=tf.function(model.reset_metrics, autograph=False),
            **parts,
        )

    def tell(self, event: str, *content: Any) -> None:
        """Tells every watcher; one that fails is told nothing more, and the run goes on."""
        for watcher in list(self.watchers):
            try:
                getattr(watcher, event)(*content)
            except Exception as error:
                self.watchers.remove(watcher)
                logger.warning("%s failed and is left out from here on: %s", type(watcher).__name__, error)
                logger.debug("traceback", exc_info=True)


def train_epochs(job: Job) -> None:
    """Trains until the last epoch, early stopping, or a callback's word.

    Raises:
        Interrupted: If `should_stop` said so; a checkpoint of that very step is on its way to the disk.
        DivergedError: If the loss is not finite, and the settings do not say to go back.
        TrainingError: If the data or an operation fails.
    """
    experiment, state = job.experiment, job.experiment.state
    job.callbacks.begin()
    while state.progress.epoch < experiment.settings.epochs and state.progress.stop_reason is None:
        started = time.monotonic()
        try:
            with explained(experiment), _checkpoint_on_interrupt(job):
                logs = _train_epoch(job)
                rate = _learning_rate(experiment.model)
                logs |= _validate_and_judge(job, logs)
        except DivergedError as error:
            reload_after_divergence(job, error)
            continue
        _finish_epoch(job, logs, rate, time.monotonic() - started)
    job.callbacks.list.on_train_end(state.progress.last_logs)


def _train_epoch(job: Job) -> dict[str, float]:
    """Trains the epoch from the step reached on; returns its loss and metrics."""
    experiment, state = job.experiment, job.experiment.state
    progress, feed = state.progress, experiment.train
    if progress.step == 0:
        job.reset_metrics()
        if job.callbacks:
            job.callbacks.list.on_epoch_begin(progress.epoch)
    source = feed.open(progress.epoch, progress.step)
    logs: dict[str, tf.Tensor] = {}
    while feed.steps is None or progress.step < feed.steps:
        _between_calls(job)
        first = progress.step
        last = first + job.pace.steps(_steps_to_next_stop(job))
        last = last if feed.steps is None else min(last, feed.steps)
        source, latest, ended = _call(job, source, first, last)
        logs = latest if progress.step > first or not logs else logs
        if ended:
            break
    if not logs:  # resumed between the last step and the validation
        logs = experiment.model.get_metrics_result()
    if progress.step == 0:
        raise DataError(
            "dataset: the train split gave no batch. Expected at least one. Look at what `dataset` returns."
        )
    return as_numbers(logs)


def _call(job: Job, source: Any, first: int, last: int) -> tuple[Any, dict[str, tf.Tensor], bool]:
    """One call of the compiled loop and the bookkeeping after it; gives source, logs, and whether the epoch ends."""
    experiment, progress, feed = job.experiment, job.experiment.state.progress, job.experiment.train
    if job.callbacks.want_batches:
        last = first + 1
        job.callbacks.list.on_train_batch_begin(first)
    with job.pace.measured(last - first):
        steps = job.train_steps(source, first, last)
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
    if steps.exhausted and feed.goes_on and steps.done < feed.steps:
        return _next_pass(feed, steps.done - first), steps.logs, False
    return source, steps.logs, steps.exhausted or job.callbacks.stop_training


def _next_pass(feed: Feed, steps_of_this_pass: int) -> Any:
    if steps_of_this_pass == 0 and feed.position()["taken"] == 0:
        raise DataError(
            f"dataset: the {feed.split} pipeline gives no batch. Expected at least one. Look at what `dataset` returns."
        )
    return feed.next_pass()


def _diverged(experiment: Experiment, step: int) -> DivergedError:
    from experiments_manager.training.feeds import Shape

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
    return values


def _validate(job: Job) -> dict[str, float]:
    feed, loop = job.experiment.validation, job.test_steps
    if feed is None or loop is None:
        return {}
    job.reset_metrics()
    job.callbacks.list.on_test_begin()
    values = run_test_steps(
        loop, feed, job.experiment.state.progress.epoch, job.validation_pace, lambda: _heed_signals(job)
    )
    job.callbacks.list.on_test_end(values)
    return {f"val_{name}": value for name, value in values.items()}


def run_test_steps(
    loop: CompiledLoop, feed: Feed, epoch: int, pace: Pace, between_calls: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Evaluates a whole split; the metrics must have been reset.

    Args:
        loop: Over `test_one`.
        feed: The split.
        epoch: Which validation this is, for pipelines that are built again.
        pace: How many steps a call makes.
        between_calls: Called before each call of the compiled loop.

    Returns:
        Loss and metrics.

    Raises:
        DataError: If the split gives no batch.
    """
    source, step, logs = feed.open(epoch), 0, {}
    while feed.steps is None or step < feed.steps:
        between_calls()
        last = step + pace.steps(None)
        first, last = step, last if feed.steps is None else min(last, feed.steps)
        with pace.measured(last - first):
            steps = loop(source, first, last)
        step = steps.done
        logs = steps.logs if step > first else logs
        if steps.exhausted:
            break
    feed.close_epoch()
    if step == 0:
        raise DataError(
            f"dataset: the {feed.split} split gave no batch. Expected at least one. Look at what `dataset` returns."
        )
    return as_numbers(logs)


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


def publish(job: Job) -> None:
    """Hands the weights in place to the publisher, under the global step that they belong to."""
    if job.publisher is None:
        return
    step = job.experiment.state.progress.global_step
    try:
        job.publisher.submit(step)
    except (tf.errors.OpError, ValueError) as error:
        job.tell("on_message", f"Version {step} was not published: {error}")
        return
    job.experiment.state.progress.last_version = step


def _lower_learning_rate(job: Job) -> None:
    settings, optimizer = job.experiment.settings, job.experiment.model.optimizer
    rate = float(optimizer.learning_rate)
    lower = max(rate * settings.reduce_lr_factor, settings.min_learning_rate)
    if np.float32(lower) < np.float32(rate):
        optimizer.learning_rate = lower
        job.tell("on_message", f"Learning rate lowered from {rate:g} to {lower:g}.")


def _finish_epoch(job: Job, logs: dict[str, float], rate: float, seconds: float) -> None:
    """What follows an epoch: callbacks, report, checkpoint."""
    experiment, progress = job.experiment, job.experiment.state.progress
    experiment.train.close_epoch()
    if job.callbacks:
        job.callbacks.list.on_epoch_end(progress.epoch - 1, dict(logs))
        if job.callbacks.stop_training and progress.stop_reason is None:
            progress.stop_reason = STOPPED_BY_CALLBACK
    progress.last_logs = logs
    improved = progress.best is not None and progress.best.step == progress.global_step
    job.tell("on_epoch", EpochReport(progress.epoch, progress.global_step, logs, rate, seconds, improved))
    report_versions(job)
    age = time.monotonic() - job.checkpoints.last_written
    if age > SECONDS_BETWEEN_EPOCH_CHECKPOINTS:
        checkpoint(job)


def _learning_rate(model: Any) -> float:
    return float(model.optimizer.learning_rate) if model.optimizer is not None else float("nan")


def checkpoint(job: Job) -> None:
    """Copies the state and lets it be written in the background."""
    experiment = job.experiment
    try:
        stage = job.checkpoints.stage()
        feeds = {"train": experiment.train} | ({"validation": experiment.validation} if experiment.validation else {})
        positions = extras_for(feeds, stage)
    except (OSError, tf.errors.OpError) as error:
        job.checkpoints.failed(error)
        return
    snapshot = experiment.state.snapshot(positions=positions, callbacks=job.callbacks.state())
    job.checkpoints.submit(snapshot, stage)
    job.last_checkpoint_step = snapshot.progress.global_step


@contextlib.contextmanager
def _checkpoint_on_interrupt(job: Job) -> Iterator[None]:
    """Saves the state of the very step at which training was asked to stop."""
    try:
        yield
    except Interrupted:
        checkpoint(job)
        raise


def _between_calls(job: Job) -> None:
    """What happens between two calls of the compiled training loop: news, signals, checkpoints that are due."""
    _heed_signals(job)
    settings, step = job.experiment.settings, job.experiment.state.progress.global_step
    every, minutes = settings.checkpoint_every_steps, settings.checkpoint_every_minutes
    by_steps = every is not None and step > 0 and step % every == 0
    by_time = minutes is not None and time.monotonic() - job.checkpoints.last_written > 60 * minutes
    if (by_steps or by_time) and job.last_checkpoint_step != step:
        checkpoint(job)


def _heed_signals(job: Job) -> None:
    """News and signals alone, for when the state is not one to be saved: in a validation, the averages are in place."""
    report_versions(job)
    if job.should_stop():
        raise Interrupted


def _steps_to_next_stop(job: Job) -> int | None:
    """Steps until a checkpoint is due, which calls must not run past."""
    every = job.experiment.settings.checkpoint_every_steps
    return None if every is None else every - job.experiment.state.progress.global_step % every


def report_versions(job: Job) -> None:
    """Tells the watchers what became of versions that were handed to the publisher."""
    for version, problem in job.publisher.outcomes() if job.publisher else ():
        if problem is None:
            job.tell("on_version", VersionPublished(version, job.run.exports_dir / str(version)))
        else:
            job.tell("on_message", f"Version {version} was not published: {problem}")
