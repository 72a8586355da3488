"""The clients of a federation, as the run of the global model sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from flwr.serverapp import Grid

    from experiments_manager.federated.server.federation_state import RoundReport


class Fleet(Protocol):
    """Clients in this process, in processes of Flower's simulation, or on machines of their own."""

    kind: str
    """`simulation`, `ray` or `deployment`; for `run.json`."""
    grid: Grid
    """How messages reach them."""
    config: Mapping[str, Any]
    """What clients are told with each message, besides what the round needs."""
    keeps_state: bool
    """Whether clients keep state where this process cannot reach it. No round is begun then before the state of the
    last one is on disk, so clients are never more than a round ahead of a server that starts again."""

    def before_round(self, round: int) -> None:  # noqa: A002
        """Get ready for a round, in the thread of the loop."""

    def after_round(self, report: RoundReport) -> None:
        """Learn what became of a round that counts, before its `state` is asked for."""

    def state(self) -> Mapping[str, np.ndarray]:
        """Return what the clients keep between rounds, as far as it is here."""

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go back to what `state` returned; nothing of it is the state before the first round."""
