"""The state of a run as one object: what a checkpoint holds, whole, or it is no checkpoint."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments_manager.compat.keras import seed_states
from experiments_manager.training.errors import TrainingError
from experiments_manager.training.hosts.team import ALONE, Team
from experiments_manager.training.seeds import host_random_state
from experiments_manager.training.state.averaging import Averages
from experiments_manager.training.state.graph_state import captured_variables
from experiments_manager.training.state.progress import TrainingProgress
from experiments_manager.training.state.reachable import Reachable, optimizers_of, reachable
from experiments_manager.training.state.shares import SHARES, own_share, put_back


@dataclasses.dataclass(frozen=True)
class StateSnapshot:
    """A copy of the state between two steps; nothing in it changes any more."""

    progress: TrainingProgress
    tensors: dict[str, tf.Tensor]
    """Variables by name, and the best weights under `best/…`."""
    extras: dict[str, Any]
    """Positions in the data, host random state, callbacks: plain data (JSON)."""
    iterators: dict[str, tf.Tensor] = dataclasses.field(default_factory=dict)
    """States of iterators with their buffers, by split; only on the way to the disk."""


EPOCH_TRAINER = "epoch_trainer/"
FURTHER = ("best/", "user/", "callbacks/", "generators/", EPOCH_TRAINER, SHARES)
"""Beginnings of names of tensors in a snapshot that are no variables."""
USERS = ("reached/", "captured/")
"""Beginnings of names of variables that the user made and Keras does not list."""


class TrainingState:
    """All that decides how a run goes on.

    Args:
        model: Built and compiled.
        step: The global step, int64.
        averages: Moving averages of the weights, or `None`.
    """

    def __init__(self, model: keras.Model, step: tf.Variable, averages: Averages | None) -> None:
        self.model, self.step, self.averages = model, step, averages
        self.progress = TrainingProgress()
        self.best_weights: list[tf.Tensor] | None = None
        self._traced: list[Any] = []
        self._ignored: list[tf.Variable] = []
        self._transient = [
            *(own_share(variable.value) for variable in model.metrics_variables),
            *(variable.value for variable in seed_states(model)),
        ]
        self._copy_weights = _copy_function([variable.value for variable in model.variables])
        self._copy_transient = _copy_function(self._transient)

    @property
    def learning_rate(self) -> float:
        """The rate in force; NaN where a model of the user's has no optimizer."""
        optimizer = self.model.optimizer
        # Through a tensor, since on several devices the variable is several.
        return float("nan") if optimizer is None else float(tf.convert_to_tensor(optimizer.learning_rate))

    def include(self, traced: Sequence[Any], ignored: Sequence[tf.Variable] = ()) -> None:
        """Take every variable that traced steps use into the state, wherever the user keeps it.

        Args:
            traced: Concrete functions.
            ignored: Variables of the engine's own, which each step sets again.
        """
        self._traced, self._ignored = list(traced), list(ignored)

    @functools.cached_property
    def reachable(self) -> Reachable:
        """What the model holds and Keras does not list; looked up once the training step was traced."""
        return reachable(self.model)

    @functools.cached_property
    def variables(self) -> dict[str, tf.Variable]:
        """All variables of the state by name; looked up once the training step was traced."""
        named = _named_variables(self.model, self.step, self.averages)
        known = {id(variable) for variable in [*named.values(), *self._ignored]}
        for path, variable in self.reachable.variables.items():
            if id(variable) not in known:
                known.add(id(variable))
                named[f"reached/{path}"] = variable
        captured = captured_variables(self._traced, [*named.values(), *self._ignored])
        return named | {f"captured/{number:04d}": variable for number, variable in enumerate(captured)}

    def holds(self, variable: Any) -> bool:
        """Return whether a variable is part of the state."""
        return any(variable is held for held in self.variables.values())

    @functools.cached_property
    def _copy_all(self) -> Any:
        return _copy_function([own_share(variable) for variable in self.variables.values()])

    def snapshot(self, further: Mapping[str, tf.Tensor] | None = None, **extras: Any) -> StateSnapshot:
        """Copy the state; the copy is shared until training next writes, so this costs little.

        Args:
            further: Tensors that are no variables, by names that begin with one of `FURTHER`, and variables as a whole
                of which this process holds a share.
            **extras: Plain data to keep with it.
        """
        tensors = dict(zip(self.variables, self._copy_all(), strict=True))
        if self.best_weights is not None:
            tensors |= {f"best/{number:04d}": value for number, value in enumerate(self.best_weights)}
        tensors |= further or {}
        extras = {"random": host_random_state(), **extras}
        return StateSnapshot(copy.deepcopy(self.progress), tensors, extras)

    def restore(self, snapshot: StateSnapshot, team: Team = ALONE) -> None:
        """Put the state back, all but that of Python's and NumPy's generators, which reading data may change again.

        Args:
            snapshot: The state.
            team: The processes that train together.

        Raises:
            TrainingError: If the model or optimiser is another one than the snapshot's.
        """
        missing = sorted(self.variables.keys() - snapshot.tensors.keys())
        if not any(name.startswith(USERS) for name in snapshot.tensors):  # an earlier release did not write these
            missing = [name for name in missing if not name.startswith(USERS)]
        surplus = sorted(
            name for name in snapshot.tensors.keys() - self.variables.keys() if not name.startswith(FURTHER)
        )
        if missing or surplus:
            raise TrainingError(
                "The checkpoint does not match the model or optimizer. "
                f"Expected {len(self.variables)} variables, got {len(snapshot.tensors)}"
                + (f"; not in the checkpoint: {', '.join(missing[:3])}" if missing else "")
                + (f"; not in the model: {', '.join(surplus[:3])}" if surplus else "")
                + ". Resume with the settings that the run was started with."
            )
        for name, variable in self.variables.items():
            value = snapshot.tensors.get(name)
            if value is None:
                continue
            if tuple(variable.shape) != tuple(value.shape):
                raise TrainingError(
                    f"The checkpoint belongs to another model: {name} has shape {tuple(value.shape)}, "
                    f"expected {tuple(variable.shape)}. Resume with the settings that the run was started with."
                )
            put_back(variable, value, snapshot.tensors.get(SHARES + name), team)
        best = sorted(name for name in snapshot.tensors if name.startswith("best/"))
        self.best_weights = [tf.convert_to_tensor(snapshot.tensors[name]) for name in best] or None
        self.progress = copy.deepcopy(snapshot.progress)

    def weights(self) -> list[tf.Tensor]:
        """Copy all variables of the model as they are now (the averages, inside `Averages.swapped_in`)."""
        return self._copy_weights()

    def assign_weights(self, values: Sequence[tf.Tensor | np.ndarray]) -> None:
        """Put back what `weights` gave."""
        for variable, value in zip(self.model.variables, values, strict=True):
            variable.assign(value)

    def averages_in_place(self) -> contextlib.AbstractContextManager[None]:
        """Inside, the model's weights are their averages, where there are any."""
        return self.averages.swapped_in() if self.averages else contextlib.nullcontext()

    @contextlib.contextmanager
    def best_weights_swapped_in(self) -> Iterator[None]:
        """Inside, the model's weights are the best ones; there must be some."""
        held = self.weights()
        self.assign_weights(self.best_weights)
        try:
            yield
        finally:
            self.assign_weights(held)

    def keep_transient(self) -> list[tf.Tensor]:
        """Copy what validation changes and training goes on from: metrics and seeds."""
        return self._copy_transient()

    def restore_transient(self, values: Sequence[tf.Tensor]) -> None:
        """Put back what `keep_transient` gave."""
        for variable, value in zip(self._transient, values, strict=True):
            variable.assign(value)


def _copy_function(variables: Sequence[tf.Variable]) -> Any:
    copy_all = tf.function(lambda: [tf.identity(variable) for variable in variables], autograph=False)
    return copy_all.get_concrete_function()


def _named_variables(model: keras.Model, step: tf.Variable, averages: Averages | None) -> dict[str, tf.Variable]:
    """Return every variable of the state under a name that is the same in each process that builds the same model."""
    groups: dict[str, Sequence[Any]] = {
        "model": model.variables,
        "metrics": model.metrics_variables,
        **{name: optimizer.variables for name, optimizer in optimizers_of(model).items()},
        "seeds": seed_states(model),
    }
    named: dict[str, tf.Variable] = {"step": step}
    seen: set[int] = {id(step)}
    for group, variables in groups.items():
        for number, variable in enumerate(variables):
            value = variable.value if isinstance(variable, keras.Variable) else variable
            if id(value) not in seen:
                seen.add(id(value))
                named[f"{group}/{number:04d}/{variable.path.split('/')[-1]}"] = value
    for number, average in enumerate(averages.averages if averages else []):
        named[f"averages/{number:04d}"] = average
    return named
