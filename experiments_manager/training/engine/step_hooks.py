"""What happens between two calls of the compiled loop, and after the last: signals, checkpoints, versions, events."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from experiments_manager.common.error_text import reason
from experiments_manager.compat.tensorflow import operation_seed_state
from experiments_manager.events import VersionPublished
from experiments_manager.export.versions import versions
from experiments_manager.runs import RunError
from experiments_manager.training.engine.context import Interrupted, TrainingContext, new_reasons
from experiments_manager.training.engine.exactness import exactness, to_keep
from experiments_manager.training.errors import TrainingError
from experiments_manager.training.state.checkpoints import checkpoint_name, positions_of
from experiments_manager.training.state.shares import gather_shares
from experiments_manager.training.state.state import EPOCH_TRAINER, StateSnapshot


def publish(context: TrainingContext) -> None:
    """Hand the weights in place to the publisher, under the global step that they belong to."""
    if context.publisher is None:
        return
    step = context.experiment.state.progress.global_step
    if _submit(context, step):
        context.experiment.state.progress.last_version = step


def _submit(context: TrainingContext, step: int) -> bool:
    context.is_to_publish = False
    try:
        context.publisher.submit(step)
    except (tf.errors.OpError, ValueError) as error:
        context.dispatch("on_message", f"Version {step} was not published: {reason(error)}.")
        return False
    return True


def publish_later(context: TrainingContext) -> None:
    """Hand the best weights to the publisher once it has nothing to do, of several versions the newest."""
    if context.publisher is not None:
        progress = context.experiment.state.progress
        context.is_to_publish, progress.last_version = True, progress.global_step


def publish_what_waits(context: TrainingContext) -> None:
    """Hand the best weights to the publisher, if they wait for that."""
    if context.is_to_publish:
        context.is_to_publish = False
        with context.experiment.state.best_weights_swapped_in():
            _submit(context, context.experiment.state.progress.best.step)


def checkpoint(context: TrainingContext, users: tuple[dict[str, Any], dict[str, tf.Tensor]] | None = None) -> None:
    """Copy the state and let it be written in the background, unless it is what was read from there.

    Args:
        context: The run.
        users: The user's state, where it is another one than that of now.
    """
    if checkpoint_name(context.experiment.state.progress) == context.restored:
        return
    state, team = context.experiment.state, context.membership.team
    shares = gather_shares(state.variables, team)
    if team.size > 1:
        context.last_checkpoint_step = state.progress.global_step
    if not team.is_chief:
        return
    context.follow_folder(at_once=True)
    try:
        snapshot = _snapshot(context, shares, users)
    except Exception as error:  # whatever it is: training is worth more than one checkpoint
        context.checkpoints.failed(error)
        return
    context.checkpoints.submit(snapshot)
    context.last_checkpoint_step = snapshot.progress.global_step


def _snapshot(
    context: TrainingContext,
    shares: Mapping[str, np.ndarray],
    users: tuple[dict[str, Any], dict[str, tf.Tensor]] | None,
) -> StateSnapshot:
    experiment = context.experiment
    feeds = {"train": experiment.train} | ({"validation": experiment.validation} if experiment.validation else {})
    positions, iterators, said = positions_of(feeds)
    extras: dict[str, Any] = {
        "data": to_keep(context),
        "positions": positions,
        "operation_seeds": operation_seed_state(),
    }
    tensors: dict[str, tf.Tensor] = {}
    further: dict[str, tf.Tensor] = {}
    if context.user_state is not None:
        extras["user"], tensors = users or context.user_state.capture()
    if said or new_reasons(context):
        _tell_of_position(context, said)
    if context.epoch_trainer is not None:
        extras["epoch_trainer"], held = context.epoch_trainer.state()
        further = further | {f"{EPOCH_TRAINER}{name}": value for name, value in held.items()}
    gathered = {name: tf.convert_to_tensor(value) for name, value in shares.items()}
    snapshot = experiment.state.snapshot(tensors | further | gathered, **extras)
    return dataclasses.replace(snapshot, iterators=iterators)


def look_for_changes(context: TrainingContext) -> None:
    """Say what of the user's has changed that no checkpoint can hold."""
    try:
        if context.user_state is not None:
            context.user_state.look()
    except Exception as error:  # the code of others is looked at: training is worth more than that
        context.checkpoints.failed(error)
    if new_reasons(context):
        _tell_of_position(context, [])


def users_now(context: TrainingContext) -> tuple[dict[str, Any], dict[str, tf.Tensor]] | None:
    """Return the user's state before a validation; nothing where it cannot be read, which the next checkpoint tells."""
    try:
        return context.user_state.capture() if context.user_state is not None else None
    except Exception:
        return None


def _tell_of_position(context: TrainingContext, said: Sequence[str]) -> None:
    """Say, and write into run.json, what is less exact than it had seemed."""
    new = new_reasons(context)
    for text in [*said, *(f"A resume of this run is not exact: {cause}." for cause in new)]:
        context.dispatch("on_message", text)
    context.inexact_reasons += new
    with contextlib.suppress(RunError):
        context.run.update(data_position=context.experiment.train.kind, exactness=exactness(context.inexact_reasons))


@contextlib.contextmanager
def checkpoint_on_interrupt(context: TrainingContext) -> Iterator[None]:
    """Save the state of the very step at which training was asked to stop."""
    try:
        yield
    except Interrupted:
        checkpoint(context, context.before_validation)
        raise


def after_chunk(context: TrainingContext) -> None:
    """Do what is due between two calls of the compiled training loop: events, signals, checkpoints."""
    poll_signals(context)
    settings, step = context.experiment.settings, context.experiment.state.progress.global_step
    every, minutes = settings.checkpoint_every_steps, settings.checkpoint_every_minutes
    by_steps = every is not None and step > 0 and step % every == 0
    by_time = minutes is not None and context.membership.team.chiefs(
        time.monotonic() - context.checkpoints.last_written > 60 * minutes
    )
    if (by_steps or by_time) and context.last_checkpoint_step != step:
        checkpoint(context)


def ready_batches(context: TrainingContext, wanted: int) -> int:
    """Wait until training batches can be taken, heeding signals and checkpoints; return how many of those wanted.

    It is 0 where a part of the data is to be given away first, by `hand_over`.
    """
    feed, began, said = context.experiment.train, time.perf_counter(), False
    while (ready := feed.ready(wanted)) == 0 and not feed.must_release:
        after_chunk(context)
        text = feed.news()
        if text is not None:
            said = True
            context.dispatch("on_message", text)
    if said and ready:
        context.dispatch("on_message", f"Training goes on after {time.perf_counter() - began:.0f} s.")
    context.meter.waited(time.perf_counter() - began)
    return ready


def hand_over(context: TrainingContext) -> Any:
    """Give a part of the data to another run, after a checkpoint that holds what was trained on of it.

    Returns:
        The source of what stays.

    Raises:
        TrainingError: The checkpoint cannot be written, so that the samples would count nowhere or twice.
    """
    checkpoint(context)
    context.checkpoints.wait()
    if context.checkpoints.problem is not None:
        raise TrainingError(
            f"Partitions of topic {context.experiment.train.topic} are to be given to another run, but no checkpoint "
            f"can be written: {context.checkpoints.problem}. Free some space, and resume the run."
        )
    context.dispatch("on_message", f"Partitions of topic {context.experiment.train.topic} are shared out again.")
    return context.experiment.train.release()


def poll_signals(context: TrainingContext) -> None:
    """Flush events and stop where that was asked; no more in a validation, whose state is not one to be saved."""
    context.follow_folder(at_once=False)
    flush_events(context)
    if context.should_stop():
        raise Interrupted


def steps_to_next_stop(context: TrainingContext) -> int | None:
    """Return the steps until a checkpoint or scalars by step are due, which calls must not run past."""
    step = context.experiment.state.progress.global_step
    intervals = (context.experiment.settings.checkpoint_every_steps, context.meter.log_every_steps)
    return min((every - step % every for every in intervals if every), default=None)


def flush_events(context: TrainingContext) -> None:
    """Tell the watchers what became of checkpoints and versions, which are written in the background."""
    for text in context.checkpoints.messages():
        context.dispatch("on_message", text)
    context.tell_feed()
    if context.is_to_publish and context.publisher.idle:
        publish_what_waits(context)
    for version, problem in context.publisher.outcomes() if context.publisher else ():
        if problem is None:
            context.dispatch("on_version", VersionPublished(version, context.run.exports_dir / str(version)))
        else:
            context.dispatch("on_message", f"Version {version} was not published: {problem}")


def publish_at_the_end(context: TrainingContext) -> None:
    """See to it that the best weights are published, and that something is where no epoch was the best."""
    state, publisher = context.experiment.state, context.publisher
    if publisher is None:
        return
    context.is_to_publish = False
    best = state.progress.best
    if best is None:
        with state.averages_in_place():
            publish(context)
        return
    publisher.wait()
    if best.step not in versions(context.run.exports_dir):  # killed, or without space, just when it was due
        with state.best_weights_swapped_in():
            publisher.submit(best.step)
        publisher.wait()


def show_best(context: TrainingContext) -> None:
    """Let the watchers look at the model with its best weights."""
    state = context.experiment.state
    best = state.progress.best
    if best is not None:
        with state.best_weights_swapped_in():
            context.dispatch("on_best", context.viewer.view(best.epoch, best.step, {}, validated=False))
