"""What happens between two calls of the compiled loop, and after the last: signals, checkpoints, versions, news."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import tensorflow as tf

from experiments_manager.common.error_text import reason
from experiments_manager.events import VersionPublished
from experiments_manager.export.versions import versions
from experiments_manager.runs import RunError
from experiments_manager.training.engine.context import Interrupted, Job, new_reasons
from experiments_manager.training.engine.exactness import exactness
from experiments_manager.training.state.checkpoints import checkpoint_name, extras_for
from experiments_manager.training.state.reachable import packed_generators
from experiments_manager.training.state.state import Snapshot


def publish(job: Job) -> None:
    """Hands the weights in place to the publisher, under the global step that they belong to."""
    if job.publisher is None:
        return
    step = job.experiment.state.progress.global_step
    try:
        job.publisher.submit(step)
    except (tf.errors.OpError, ValueError) as error:
        job.tell("on_message", f"Version {step} was not published: {reason(error)}.")
        return
    job.experiment.state.progress.last_version = step


def checkpoint(job: Job) -> None:
    """Copies the state and lets it be written in the background, unless it is what was read from there."""
    if checkpoint_name(job.experiment.state.progress) == job.restored:
        return
    stage = None
    try:
        stage = job.checkpoints.stage()
        snapshot = _snapshot(job, stage)
    except Exception as error:  # whatever it is: training is worth more than one checkpoint
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)
        job.checkpoints.failed(error)
        return
    job.checkpoints.submit(snapshot, stage)
    job.last_checkpoint_step = snapshot.progress.global_step


def _snapshot(job: Job, stage: Path) -> Snapshot:
    experiment = job.experiment
    feeds = {"train": experiment.train} | ({"validation": experiment.validation} if experiment.validation else {})
    positions, said = extras_for(feeds, stage)
    callbacks, tensors = job.callbacks.state(experiment.state.holds)
    generators, further = packed_generators(experiment)
    if said or new_reasons(job):
        _tell_of_position(job, said)
    return experiment.state.snapshot(tensors | further, positions=positions, callbacks=callbacks, generators=generators)


def _tell_of_position(job: Job, said: Sequence[str]) -> None:
    """Says, and writes into run.json, what is less exact than it had seemed."""
    new = new_reasons(job)
    for text in [*said, *(f"A resume of this run is not exact: {cause}." for cause in new)]:
        job.tell("on_message", text)
    job.inexact_because += new
    with contextlib.suppress(RunError):
        job.run.update(data_position=job.experiment.train.kind, exactness=exactness(job.inexact_because))


@contextlib.contextmanager
def checkpoint_on_interrupt(job: Job) -> Iterator[None]:
    """Saves the state of the very step at which training was asked to stop."""
    try:
        yield
    except Interrupted:
        checkpoint(job)
        raise


def between_calls(job: Job) -> None:
    """What happens between two calls of the compiled training loop: news, signals, checkpoints that are due."""
    heed_signals(job)
    settings, step = job.experiment.settings, job.experiment.state.progress.global_step
    every, minutes = settings.checkpoint_every_steps, settings.checkpoint_every_minutes
    by_steps = every is not None and step > 0 and step % every == 0
    by_time = minutes is not None and time.monotonic() - job.checkpoints.last_written > 60 * minutes
    if (by_steps or by_time) and job.last_checkpoint_step != step:
        checkpoint(job)


def heed_signals(job: Job) -> None:
    """News and signals alone, for when the state is not one to be saved: in a validation, the averages are in place."""
    tell_news(job)
    if job.should_stop():
        raise Interrupted


def steps_to_next_stop(job: Job) -> int | None:
    """Steps until a checkpoint or scalars by step are due, which calls must not run past."""
    step = job.experiment.state.progress.global_step
    intervals = (job.experiment.settings.checkpoint_every_steps, job.meter.log_every_steps)
    return min((every - step % every for every in intervals if every), default=None)


def tell_news(job: Job) -> None:
    """Tells the watchers what became of checkpoints and versions, which are written in the background."""
    for text in job.checkpoints.messages():
        job.tell("on_message", text)
    for version, problem in job.publisher.outcomes() if job.publisher else ():
        if problem is None:
            job.tell("on_version", VersionPublished(version, job.run.exports_dir / str(version)))
        else:
            job.tell("on_message", f"Version {version} was not published: {problem}")


def publish_at_the_end(job: Job) -> None:
    """Sees to it that the best weights are published, and that something is where no epoch was the best."""
    state, publisher = job.experiment.state, job.publisher
    if publisher is None:
        return
    best = state.progress.best
    if best is None:
        with state.averages.in_place() if state.averages else contextlib.nullcontext():
            publish(job)
        return
    publisher.wait()
    if best.step not in versions(job.run.exports_dir):  # killed, or without space, just when it was due
        with state.best_in_place():
            publisher.submit(best.step)
        publisher.wait()


def show_best(job: Job) -> None:
    """Lets the watchers look at the model with its best weights."""
    state = job.experiment.state
    best = state.progress.best
    if best is not None:
        with state.best_in_place():
            job.tell("on_best", job.viewer.view(best.epoch, best.step, {}, validated=False))
