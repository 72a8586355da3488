"""Who is told of the rounds of a federation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments_manager.events import Watcher

if TYPE_CHECKING:
    from experiments_manager.federated.server.federation_state import RoundReport
    from experiments_manager.federated.strategies.server_strategy import ServerStrategy


class RoundWatcher(Watcher):
    """Is told of rounds, besides what every watcher of a run is told; one that fails is told nothing more.

    Base class of those who draw, write and export what an epoch's report has no room for.
    """

    def on_begin(self, first_round: int) -> None:
        """Get ready, before the first round that this process runs; what was written of it and later ones is void."""

    def on_round(self, report: RoundReport, strategy: ServerStrategy) -> None:
        """Learn what became of a round, before there is a checkpoint of it; a round may be told again.

        The variables of the model are nobody's during the call.
        """

    def on_last(self, number: int, strategy: ServerStrategy) -> None:
        """Learn that there will be no round after this one, unless someone asks for more."""
