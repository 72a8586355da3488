"""The clients of a federation, as the run of the global model sees them, and the federation while its rounds go on."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from experiments_manager.federated.server.exchange import BaseGrid
    from experiments_manager.federated.server.federation_state import RoundReport
    from experiments_manager.federated.strategies.reply_checks import ProcIds
    from experiments_manager.federated.strategies.server_strategy import ServerStrategy
    from experiments_manager.settings.options.federated import FederatedOptions

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Simulation:
    """Clients that are simulated.

    Attributes:
        engine: `process` (threads of this one) or `ray` (processes that Ray starts).
        workers: How many clients train at a time; by default one for each processor. Results do not depend on it.
    """

    engine: str = "process"
    workers: int | None = None


class Fleet:
    """Clients on machines of their own, which get ready and keep what they need by themselves; others derive from it.

    Args:
        grid: How messages reach them.
        config: What clients are told with each message, besides what the round needs.

    Attributes:
        keeps_state: Whether clients keep state where this process cannot reach it. No round is begun then before the
            state of the last one is on disk, so clients are never more than a round ahead of a server that starts
            again.
        inexact_reasons: Why clients would not go on after a resume as if there had been none.
    """

    keeps_state = True
    inexact_reasons: Sequence[str] = ()

    def __init__(self, grid: BaseGrid, config: Mapping[str, Any] | None = None) -> None:
        self.grid, self.config = grid, config or {}

    def after_round(self, report: RoundReport) -> None:
        """Learn what became of a round that counts, before its `state` is asked for."""

    def state(self) -> Mapping[str, np.ndarray]:
        """Return what the clients keep between rounds, as far as it is here."""
        return {}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Get ready for a try of a round, with what `state` returned; nothing of it is that before the first round."""


@dataclasses.dataclass
class Federation:
    """A federation while its rounds go on: everything that the parts of a round work with."""

    fleet: Fleet
    strategy: ServerStrategy
    proc_ids: ProcIds
    options: FederatedOptions
    """What the settings say; a round with fewer good answers than `min_clients` does not count."""
    seed: int = 0
    tries: int = 3
    """How often a round is begun until enough clients answered."""
    pause: float = 1.0
    """Seconds between two tries."""
    train_config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What clients are told with each training message, e.g. `local-epochs`, besides the fleet's own words."""
    on_message: Callable[[str], None] = logger.info
    """Called with one sentence that the user should read."""
    should_stop: Callable[[], bool] = lambda: False
    """Asked between rounds and while waiting; a round in which it says so does not count."""
