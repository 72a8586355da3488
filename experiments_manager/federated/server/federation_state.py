"""What a federation is between two rounds, and what is told of a round."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from experiments_manager.federated.strategies.reply_checks import LeftOut

Values = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class FederationState:
    """Everything that the next round depends on."""

    round: int
    """Completed rounds."""
    arrays: Mapping[str, np.ndarray]
    """The global model's variables, in the order in which they are sent."""
    strategy: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the strategy remembers, as far as JSON holds it."""
    strategy_arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """What the strategy remembers in arrays."""
    client_arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """What the clients keep from round to round, as far as it is in this process."""


@dataclasses.dataclass(frozen=True)
class RoundReport:
    """What became of a round."""

    round: int
    """Counted from 1."""
    seconds: float
    train: Values
    """Metrics of the clients' training, aggregated."""
    clients: Values
    """Metrics of the clients' evaluation of the new model, aggregated; empty where they did not evaluate."""
    train_by_client: Mapping[int, Values]
    """Metrics of each client that took part, with `num-examples`."""
    clients_by_client: Mapping[int, Values]
    """The same of their evaluation."""
    participants: tuple[int, ...]
    """Numbers of the clients whose weights were aggregated."""
    left_out: tuple[LeftOut, ...]
    """Clients that were asked and did not count, in training or in evaluation, and why."""
    bytes_sent: int
    bytes_received: int
    tries: int = 1
    """How often the round was begun until enough clients answered."""
