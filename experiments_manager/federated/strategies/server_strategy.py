"""The strategy that a server works with: one of Flower's, for variables of any dtype, and with its state."""

from __future__ import annotations

import contextlib
import fnmatch
import gc
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import Strategy

from experiments_manager.federated.strategies.clustered import Cluster, Clustered
from experiments_manager.federated.strategies.partial_strategy import PartialStrategy, averaging_plainly, joined
from experiments_manager.federated.strategies.strategy_state import InitialStrategy, restore, state_of

_VARIANCES = "*moving_variance"
_EXAMPLES = "samples told"
"""Under which the state has what clients told in earlier rounds."""


class ServerStrategy(PartialStrategy):
    """Lets a strategy of Flower aggregate what is made of real numbers, and gives all variables their dtypes again.

    Flower's strategies multiply and subtract variables, and return some in double precision. So variables of integers
    and booleans (a counter, a flag) go round them. Variables that are not trained go round those that take steps of
    their own (`FedAdam`). Noise that is added for differential privacy is in all variables; a moving variance that it
    makes negative becomes 0.

    Args:
        strategy: The strategy within.
        averaged: Names of the variables that are not trained.

    Attributes:
        needs_changes: Whether clients must not send variables just as they got them: the norm of updates divides.
    """

    def __init__(self, strategy: Strategy, averaged: Collection[str] = ()) -> None:
        super().__init__(averaging_plainly(strategy, averaged))
        self.needs_changes = type(strategy).__name__.startswith("DifferentialPrivacyServerSide")
        self._beginning = InitialStrategy(self.strategy)
        self._examples: dict[int, float] = {}

    def takes(self, name: str, array: Array) -> bool:
        """Return whether a variable is one of real numbers."""
        return is_float(array)

    @property
    def clustered(self) -> Clustered | None:
        """The strategy within that keeps clusters of clients; `None` where there is none."""
        inner = self.strategy
        while not isinstance(inner, Clustered) and hasattr(inner, "strategy"):
            inner = inner.strategy
        return inner if isinstance(inner, Clustered) else None

    @property
    def clusters(self) -> list[Cluster]:
        """The clusters of clients, each with all variables of its model; none where all clients share one model."""
        if self.clustered is None or self._sent is None:
            return []
        return [
            Cluster(cluster.proc_ids, cluster.examples, joined(cluster.arrays, self._sent))
            for cluster in self.clustered.clusters
        ]

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return what the strategy keeps from round to round, as what JSON can hold and as arrays (`state_of`).

        Raises:
            FederationError: It keeps something that cannot be stored.
        """
        plain, arrays = state_of(self.strategy, self._beginning)
        told = {_EXAMPLES: {str(number): count for number, count in sorted(self._examples.items())}}
        return plain | (told if self._examples else {}), arrays

    @property
    def examples(self) -> Mapping[int, float]:
        """The largest number of samples that each client told in a round that counted."""
        return self._examples

    def note_examples(self, told: Mapping[int, float]) -> None:
        """Remember how many samples clients told."""
        self._examples |= {number: max(count, self._examples.get(number, 0.0)) for number, count in told.items()}

    def restore(self, plain: dict[str, Any], arrays: Mapping[str, np.ndarray], sent: ArrayRecord | None = None) -> None:
        """Give the strategy, built anew from the same settings, what `state` returned.

        Args:
            plain: The part for JSON.
            arrays: The arrays.
            sent: The global variables at that time; needed to read `clusters` before the next round.

        Raises:
            FederationError: The state is that of another strategy.
        """
        plain = dict(plain)
        self._examples = {int(number): count for number, count in plain.pop(_EXAMPLES, {}).items()}
        restore(self.strategy, plain, dict(arrays))
        self._sent = sent

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate checked replies (`checked_replies`), which are used up; the variables have dtypes as sent."""
        with _quick_collections():
            arrays, metrics = super().aggregate_train(server_round, replies)
        return arrays if arrays is None else _without_negative_variances(arrays), metrics


def _without_negative_variances(record: ArrayRecord) -> ArrayRecord:
    negative = {
        name: Array(np.maximum(array.numpy(), 0))
        for name, array in record.items()
        if fnmatch.fnmatchcase(name, _VARIANCES) and is_float(array) and (array.numpy() < 0).any()
    }
    return ArrayRecord({**record, **negative}) if negative else record


@contextlib.contextmanager
def _quick_collections() -> Iterator[None]:
    """Keep what there is from being searched for garbage: some strategies of Flower collect it once a variable.

    With TensorFlow in the process, each of these collections takes a tenth of a second.
    """
    ours = gc.get_freeze_count() == 0
    if ours:
        gc.freeze()
    try:
        yield
    finally:
        if ours:
            gc.unfreeze()


def is_float(array: Array) -> bool:
    """Return whether a variable is one of real numbers, which strategies may average."""
    return array.dtype.startswith(("float", "bfloat"))
