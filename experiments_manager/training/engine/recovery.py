"""Going back to a checkpoint: after a kill, or after the loss ceased to be a number."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from experiments_manager.compat.tensorflow import restore_operation_seed_state
from experiments_manager.events import Rollback
from experiments_manager.kafka.errors import NoBrokerError
from experiments_manager.training.engine.context import TrainingContext
from experiments_manager.training.engine.step_hooks import poll_signals
from experiments_manager.training.errors import DivergedError
from experiments_manager.training.hosts.membership import require_same
from experiments_manager.training.seeds import restore_host_random_state
from experiments_manager.training.setup.experiment import Experiment
from experiments_manager.training.state.checkpoints import checkpoints, read_latest
from experiments_manager.training.state.reachable import restore_generators
from experiments_manager.training.state.state import EPOCH_TRAINER, StateSnapshot
from experiments_manager.training.state.user_state import Roots, UserState

MOST_RELOADS = 3
"""After so many, the trouble is not one unlucky batch."""
_TRAINING_HOOKS = ("loss", "metrics", "learning_rate", "optimizer")
"""Hooks whose values, or what they gave, have a part in each step."""


def restore_latest(context: TrainingContext, check: Callable[[StateSnapshot], None] = lambda snapshot: None) -> bool:
    """Put the newest whole checkpoint's state back.

    Args:
        context: Of the run.
        check: Called with it before anything is put back.

    Returns:
        Whether there was one; a run that was killed before its first one begins again.
    """
    feeds = {"train": context.experiment.train, "validation": context.experiment.validation}

    def require(snapshot: StateSnapshot) -> None:
        for name, position in snapshot.extras["positions"].items():
            if feeds.get(name) is not None:
                feeds[name].require(position)

    membership, folder = context.membership, context.run.checkpoints_dir
    if membership.cluster is not None:
        membership.team.chiefs(None)  # whatever the chief has to write is there
        folder = membership.run / folder.relative_to(context.run.path)
    found = read_latest(folder, lambda text: context.dispatch("on_message", text), require)
    require_same(membership.team, "checkpoints to go on from", found and found[0].name)
    if found is None:
        return False
    path, snapshot = found
    check(snapshot)
    context.experiment.state.restore(snapshot, membership.team)
    context.to_put_back = path, snapshot
    if context.user_state is not None:
        _put_back_the_rest(context)
    if context.epoch_trainer is not None:
        held = {
            name.removeprefix(EPOCH_TRAINER): value
            for name, value in snapshot.tensors.items()
            if name.startswith(EPOCH_TRAINER)
        }
        context.epoch_trainer.restore(snapshot.extras["epoch_trainer"], held)
    context.restored = path.name
    return True


def begin_training(context: TrainingContext) -> None:
    """Call `on_train_begin`, look at the user's objects, and put back what the checkpoint holds that was read.

    A resume calls `on_train_begin` again, which sees the weights reached; whatever it changes or draws is as it was
    afterwards, as is all else that a resume does a second time.
    """
    for feed in filter(None, (context.experiment.validation, context.experiment.train)):  # made last, put back first
        feed.forget_looks()
    context.callbacks.begin()
    context.user_state = user_state_of(context.experiment)
    context.experiment.train.opens_pass = context.user_state.opens_pass
    if context.to_put_back is not None:
        state = context.experiment.state
        progress = state.progress  # which may have been told already to go on
        state.restore(context.to_put_back[1], context.membership.team)
        state.progress = progress
        _put_back_the_rest(context)


def _put_back_the_rest(context: TrainingContext) -> None:
    """Put back the user's state, the positions in the data, and the generators that both draw from."""
    path, snapshot = context.to_put_back
    context.to_put_back, users, extras = None, context.user_state, snapshot.extras
    feeds = {"train": context.experiment.train, "validation": context.experiment.validation}
    saved = extras.get("user")
    users.closes_pass()
    if saved is not None:
        users.put_back_opening(saved, snapshot.tensors)
        context.experiment.train.replays = bool(saved.get("reads"))
    restored = [
        feeds[name].restore(position, path / f"iterator-{name}")
        for name, position in extras["positions"].items()
        if feeds.get(name) is not None
    ]
    if saved is not None:
        users.put_back(saved, snapshot.tensors)
    else:  # an earlier release wrote it
        restore_generators(context.experiment, extras.get("generators", {}), snapshot.tensors)
        context.callbacks.restore(extras.get("callbacks", ()), snapshot.tensors)
    if not any(restored):  # building a pipeline again has seeded Python and NumPy
        restore_host_random_state(extras["random"])
        restore_operation_seed_state(extras.get("operation_seeds", {"numbers": [None, (), None]}))


def reload_after_divergence(context: TrainingContext, error: DivergedError) -> None:
    """Go back to the last good state and lower the learning rate, where `on_nan = "reload"`.

    Raises:
        DivergedError: If the settings say to stop, there is no checkpoint, the rate cannot be lowered, or it happened
            too often.
    """
    settings, model, state = context.experiment.settings, context.experiment.model, context.experiment.state
    reloads = state.progress.reloads + 1
    if settings.on_nan != "reload":
        raise error
    if reloads > MOST_RELOADS:
        text = f"{error} Training went back to a checkpoint {MOST_RELOADS} times."
        raise DivergedError(text, error.step) from error
    context.checkpoints.wait()
    context.checkpoints.written()  # whose offsets are not to be committed any more
    _pass_over_bad_state(context)
    if not restore_latest(context):
        raise DivergedError(f"{error} No checkpoint exists yet.", error.step) from error
    rate = state.learning_rate
    for _ in range(reloads - state.progress.reloads):  # the checkpoint's rate is from before later reloads
        rate *= settings.reduce_lr_factor
    try:
        model.optimizer.learning_rate = rate
    except TypeError:  # a schedule
        raise DivergedError(f"{error} `on_nan` cannot lower the learning rate of a schedule.", error.step) from error
    state.progress.reloads = reloads
    progress = state.progress
    context.dispatch("on_rollback", Rollback(progress.epoch + 1, progress.step, progress.global_step))
    context.dispatch(
        "on_message",
        f"The loss was not finite after step {error.step}; back to step {state.progress.global_step} with learning "
        f"rate {rate:g} ({reloads} of at most {MOST_RELOADS} times).",
    )


def go_back_to_checkpoint(context: TrainingContext, error: Exception) -> None:
    """Go back to the newest checkpoint, since what was trained on after it belongs to another run now.

    Raises:
        Exception: `error`, where there is no checkpoint.
        Interrupted: It was asked to stop while the broker was away.
    """
    context.checkpoints.wait()
    if not _restore_once_known(context):
        raise error
    context.checkpoints.written()  # whose offsets are not to be committed any more
    progress = context.experiment.state.progress
    context.dispatch("on_rollback", Rollback(progress.epoch + 1, progress.step, progress.global_step))
    context.dispatch("on_message", f"{error} Training goes on from step {progress.global_step}, its last checkpoint.")


def _restore_once_known(context: TrainingContext) -> bool:
    """Put the newest checkpoint back that no other run has overtaken; wait for the broker, which knows that."""
    is_told = False
    while True:
        try:
            return restore_latest(context)
        except NoBrokerError:
            if not is_told:
                context.dispatch("on_message", f"Training waits for the broker of {context.experiment.train.topic}.")
            is_told = True
            poll_signals(context)


def _pass_over_bad_state(context: TrainingContext) -> None:
    """Remove the newest checkpoint if training went back to it before and came no further, and there is another."""
    newest, *older = checkpoints(context.run.checkpoints_dir) or [None]
    if older and newest == context.reloaded:
        shutil.rmtree(newest, ignore_errors=True)
        newest = older[0]
    context.reloaded = newest


def user_state_of(experiment: Experiment) -> UserState:
    """Return the user's state, to be made after `on_train_begin` and before the first step."""
    settings, train, validation = experiment.settings, experiment.train, experiment.validation
    hooks = {f"{name}()": value for name, value in settings.hook_values.items()}
    training = {"callbacks": experiment.callbacks, "model": experiment.model}
    training |= {f"{name}()": hooks[f"{name}()"] for name in _TRAINING_HOOKS if f"{name}()" in hooks}
    opening = {"dataset()": hooks["dataset()"]} if train.calls_hook and "dataset()" in hooks else {}
    held = {id(variable): variable for variable in experiment.state.variables.values()}
    roots = Roots(
        training=training,
        opening=opening,
        reading={"train_data": tuple(train.python)},
        others=hooks | {"validation_data": tuple(validation.python) if validation is not None else ()},
    )
    return UserState(
        roots,
        settings.user_modules,
        lambda variable: id(variable) in held,
        settings.overrides,
        reads_in_parallel=train.reads_in_parallel,
        modules_now=lambda: settings.user_modules,
    )
