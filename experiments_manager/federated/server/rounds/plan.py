"""How the rounds of a federation are to be run, and who is called on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments_manager.federated.server.federation_state import FederationState, RoundReport
from experiments_manager.federated.server.rounds.proc_ids import ProcIds
from experiments_manager.federated.strategies.server_strategy import ServerStrategy
from experiments_manager.settings.options.secure_aggregation import SecureAggregation

if TYPE_CHECKING:
    from flwr.serverapp import Grid


@dataclasses.dataclass(frozen=True)
class RoundPlan:
    """What the settings say of the rounds."""

    rounds: int
    """Rounds in all, those before a resume included."""
    seed: int = 0
    min_clients: int = 1
    """A round with fewer good answers does not count."""
    round_timeout: float | None = None
    """Seconds that clients have to train, and again to evaluate; `None` waits as long as it takes."""
    max_examples: int | None = None
    """How many samples a client may tell; `None`: what is plausible (`reply_checks.Bounds`)."""
    secure: SecureAggregation | None = None
    """How updates are masked; `None`: they are sent as they are."""
    tries: int = 3
    """How often a round is begun until enough clients answered."""
    pause: float = 1.0
    """Seconds between two tries."""
    train_config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What clients are told with each training message, e.g. `local-epochs`."""
    evaluate_config: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _nothing(*_: Any) -> None:
    """No-op in place of a hook of the rounds."""


def _never() -> bool:
    return False


@dataclasses.dataclass(frozen=True)
class RoundHooks:
    """Functions that the rounds call when something has happened."""

    on_round: Callable[[RoundReport, FederationState], None] = _nothing
    """Called with each round that counts, before its state is saved: after a kill it may be called again for it."""
    extra_arrays: Callable[[], Mapping[str, np.ndarray]] | None = None
    """Gives what the state keeps for the caller, after `on_round`; without it, that stays what it was."""
    restore: Callable[[FederationState], None] = _nothing
    """Called before the first round, and before a round is tried again, with the state that it begins from: whoever
    gave `extra_arrays` takes them back from there."""
    save: Callable[[FederationState], None] = _nothing
    """Brings a state to the disk; nothing of the next round is sent before it returned."""
    on_message: Callable[[str], None] = _nothing
    """Called with one sentence that the user should read."""
    should_stop: Callable[[], bool] = _never
    """Asked between rounds and while waiting; a round in which it says so does not count."""


@dataclasses.dataclass
class Federation:
    """A federation while its rounds go on: everything that the parts of a round work with."""

    grid: Grid
    strategy: ServerStrategy
    plan: RoundPlan
    hooks: RoundHooks
    proc_ids: ProcIds
