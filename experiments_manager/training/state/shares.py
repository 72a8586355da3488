"""Variables of which each process of a training holds a share of its own: sums of metrics, until they are read.

A checkpoint holds every share, so that a resume by as many processes adds up in the same order, and the whole beside
them for a resume by any other number.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from experiments_manager.training.hosts.team import Team

SHARES = "shares/"
"""Begins the names of tensors in a checkpoint that hold what each process had of a variable, `[processes, ...]`."""


def is_of_hosts(strategy: Any) -> bool:
    """Return whether the replicas of a strategy are in several processes."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def own_share(variable: Any) -> Any:
    """Return what this process holds of a variable; the variable itself where all processes hold the same."""
    strategy = getattr(variable, "distribute_strategy", None)
    if is_of_hosts(strategy) and variable.synchronization == tf.VariableSynchronization.ON_READ:
        return strategy.experimental_local_results(variable)[0]
    return variable


def gather_shares(variables: Mapping[str, Any], team: Team) -> dict[str, np.ndarray]:
    """Return each variable that is shared out, by its name as a whole, and its shares under `SHARES`.

    Args:
        variables: All variables of the state by name.
        team: The processes, all of which call this.
    """
    if team.size == 1:
        return {}
    held = {name: own_share(variable) for name, variable in variables.items()}
    held = {name: part.numpy() for name, part in held.items() if part is not variables[name]}
    sent = team.gather({name: base64.b64encode(part.tobytes()).decode() for name, part in held.items()})
    gathered: dict[str, np.ndarray] = {}
    for name, part in held.items():
        parts = [np.frombuffer(base64.b64decode(of_one[name]), part.dtype).reshape(part.shape) for of_one in sent]
        gathered[SHARES + name] = np.stack(parts)
        gathered[name] = _whole(variables[name], gathered[SHARES + name])
    return gathered


def _whole(variable: Any, shares: np.ndarray) -> np.ndarray:
    if variable.aggregation == tf.VariableAggregation.SUM:
        return np.sum(shares, axis=0, dtype=shares.dtype)
    if variable.aggregation == tf.VariableAggregation.MEAN:
        return np.mean(shares, axis=0, dtype=shares.dtype)
    return shares[0]


def put_back(variable: Any, value: tf.Tensor, shares: tf.Tensor | None, team: Team) -> None:
    """Give a variable the value that a checkpoint holds.

    Args:
        variable: The variable.
        value: Its value as a whole.
        shares: What each process had of it, if there were several.
        team: The processes of now.
    """
    own = own_share(variable)
    if own is not variable:
        if shares is not None and shares.shape[0] == team.size:
            value = shares[team.index]
        elif variable.aggregation == tf.VariableAggregation.SUM and not team.is_chief:
            value = tf.zeros_like(value)
    own.assign(value)
