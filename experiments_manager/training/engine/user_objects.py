"""The user's objects in a run: where they are found, and when they are put back."""

from __future__ import annotations

from experiments_manager.training.setup.experiment import Experiment
from experiments_manager.training.state.user_state import Roots, UserState

_TRAINING_HOOKS = ("loss", "metrics", "learning_rate", "optimizer")
"""Hooks whose values, or what they gave, have a part in each step."""


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
    )
