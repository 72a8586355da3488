"""The strategy that a server works with: one of Flower's, for variables of any dtype, and with its state."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from experiments_manager.federated.strategies.clustered import Cluster, Clustered
from experiments_manager.federated.strategies.reply_checks import EXAMPLES
from experiments_manager.federated.strategies.strategy_state import Beginning, restore, state_of


class ServerStrategy(Strategy):
    """Lets a strategy of Flower aggregate what is made of real numbers, and gives all variables their dtypes again.

    Flower's strategies multiply and subtract variables, and return some in double precision. So variables of integers
    and booleans (a counter, a flag) go round them: each becomes the mean of those of the clients, weighted by samples
    and rounded to the nearest integer; a boolean what most samples say, `True` where they are even. Their clients get
    them all.

    Attributes:
        strategy: The strategy within.
        needs_changes: Whether clients must not send variables just as they got them: the norm of updates divides.
    """

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self.needs_changes = type(strategy).__name__.startswith("DifferentialPrivacyServerSide")
        self._beginning = Beginning(strategy)
        self._sent: ArrayRecord | None = None

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
            Cluster(cluster.proc_ids, cluster.examples, _joined(cluster.arrays, self._sent))
            for cluster in self.clustered.clusters
        ]

    def least_nodes(self) -> int:
        """Return how many nodes must be connected, or Flower waits for them in `configure_*` and heeds no signal."""
        inner, least = self.strategy, 1
        while inner is not None:
            for name in ("min_available_nodes", "min_train_nodes", "min_evaluate_nodes"):
                least = max(least, getattr(inner, name, 1))
            inner = getattr(inner, "strategy", None)
        return least

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return what the strategy keeps from round to round, as what JSON can hold and as arrays (`state_of`).

        Raises:
            FederationError: It keeps something that cannot be stored.
        """
        return state_of(self.strategy, self._beginning)

    def restore(self, plain: dict[str, Any], arrays: Mapping[str, np.ndarray], sent: ArrayRecord | None = None) -> None:
        """Give the strategy, built anew from the same settings, what `state` returned.

        Args:
            plain: The part for JSON.
            arrays: The arrays.
            sent: The global variables at that time; needed to read `clusters` before the next round.

        Raises:
            FederationError: The state is that of another strategy.
        """
        restore(self.strategy, plain, dict(arrays))
        self._sent = sent

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Make the messages of a round of training."""
        self._sent = arrays
        return _with_others(self.strategy.configure_train(server_round, _floats(arrays), config, grid), arrays)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Make the messages of a round of evaluation."""
        self._sent = arrays
        return _with_others(self.strategy.configure_evaluate(server_round, _floats(arrays), config, grid), arrays)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate checked replies (`checked_replies`), which are used up; the variables have dtypes as sent."""
        replies = list(replies)
        sent = self._sent
        others = {} if sent is None else _mean_of_others(replies, sent)
        for reply in replies:
            for key, record in list(reply.content.array_records.items()):
                reply.content[key] = _floats(record)
        with _quick_collections():
            arrays, metrics = self.strategy.aggregate_train(server_round, replies)
        if not arrays or sent is None:
            return None, metrics
        return _joined(arrays, sent, others), metrics

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Aggregate checked replies to an evaluation."""
        return self.strategy.aggregate_evaluate(server_round, list(replies))

    def summary(self) -> None:
        """Log what the strategy is set to."""
        self.strategy.summary()


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


def _floats(record: ArrayRecord) -> ArrayRecord:
    if all(is_float(array) for array in record.values()):
        return record
    return ArrayRecord({name: array for name, array in record.items() if is_float(array)})


def _joined(floats: ArrayRecord, sent: ArrayRecord, others: Mapping[str, Array] | None = None) -> ArrayRecord:
    """Return all variables in the order and with the dtypes of those that were sent."""
    joined = {}
    for name, array in sent.items():
        new = floats[name] if name in floats else (others or {}).get(name, array)
        joined[name] = new if new.dtype == array.dtype else Array(np.asarray(new.numpy(), dtype=array.dtype))
    return ArrayRecord(joined)


def _with_others(messages: Iterable[Message], sent: ArrayRecord) -> list[Message]:
    """Add the variables that are not floats to the messages; those who share a record share the new one."""
    messages = list(messages)
    if all(is_float(array) for array in sent.values()):
        return messages
    made: dict[int, RecordDict] = {}
    for message in messages:
        content = message.content
        if id(content) not in made:
            made[id(content)] = RecordDict(
                {key: _joined(held, sent) if isinstance(held, ArrayRecord) else held for key, held in content.items()}
            )
        message.content = made[id(content)]
    return messages


def _mean_of_others(replies: list[Message], sent: ArrayRecord) -> dict[str, Array]:
    names = [name for name, array in sent.items() if not is_float(array)]
    if not names or not replies:
        return {}
    weights = np.array([float(next(iter(reply.content.metric_records.values()))[EXAMPLES]) for reply in replies])
    records = [next(iter(reply.content.array_records.values())) for reply in replies]
    means = {}
    for name in names:
        values = [record[name].numpy() for record in records]
        mean = np.tensordot(weights / weights.sum(), np.stack(values).astype("float64"), axes=1)
        means[name] = Array(_rounded(mean, values[0].dtype))
    return means


def _rounded(mean: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "b":
        return np.asarray(mean >= 0.5)
    if dtype.kind not in "iu":
        raise ValueError(f"variables of dtype {dtype} cannot be averaged")
    limits = np.iinfo(dtype)
    return np.asarray(np.clip(np.rint(mean), limits.min, limits.max)).astype(dtype)
