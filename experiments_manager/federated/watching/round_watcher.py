"""Who is told of the rounds of a federation, and which values of a round go where those of an epoch go.

These are `metrics.csv`, TensorBoard, callbacks, the monitor.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

from experiments_manager.events import ROUND_COUNTS, Watcher

if TYPE_CHECKING:
    from experiments_manager.federated.server.federation_state import RoundReport
    from experiments_manager.federated.strategies.server_strategy import ServerStrategy

CLIENTS_PREFIX, CLUSTERS_PREFIX = "clients/", "clusters/"
COUNTS_OF_CLIENTS = ("num-examples", "num-steps")
"""What clients tell with their metrics that is no metric."""


def round_values(
    report: RoundReport, strategy: ServerStrategy, true_groups: Sequence[Hashable] | None = None
) -> dict[str, float]:
    """Return the values of a round by name; none of them depends on the clock.

    Those of the clients' training have their own names, those of the clients' evaluation the prefix `clients/`. Then
    come how many took part and were left out, and the bytes that were sent and received. Where the strategy keeps
    clusters, their number is there, and how well they agree with the true groups (adjusted Rand index).

    Args:
        report: What became of the round.
        strategy: The strategy after it.
        true_groups: The true group of each client by its number.
    """
    counts = (
        len(report.participants),
        len({entry.node_id for entry in report.left_out}),
        report.bytes_sent,
        report.bytes_received,
    )
    values = metrics_of(report.train) | {
        f"{CLIENTS_PREFIX}{name}": value for name, value in metrics_of(report.clients).items()
    }
    values |= {name: float(count) for name, count in zip(ROUND_COUNTS, counts, strict=True)}
    if strategy.clustered is not None:
        values[f"{CLUSTERS_PREFIX}count"] = float(len(strategy.clusters))
        if true_groups is not None:
            values[f"{CLUSTERS_PREFIX}ari"] = strategy.clustered.score(dict(enumerate(true_groups)))
    return values


def metrics_of(values: Mapping[str, float]) -> dict[str, float]:
    """Return what clients tell without their counts."""
    return {name: value for name, value in values.items() if name not in COUNTS_OF_CLIENTS}


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
