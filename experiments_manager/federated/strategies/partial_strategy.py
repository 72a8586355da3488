"""A strategy that aggregates some of the variables, while the others are averaged plainly."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvgM, FedYogi, QFedAvg, Strategy

from experiments_manager.federated.array_records import in_dtype
from experiments_manager.federated.strategies.reply_checks import EXAMPLES

_TAKE_STEPS = (FedAdagrad, FedAdam, FedYogi, FedAvgM, QFedAvg)


class PartialStrategy(Strategy):
    """Lets the strategy within see those variables that `takes` says; the others go round it.

    They become the mean of those of the clients, weighted by samples; integers are rounded to the nearest one, and a
    boolean is what most samples say, `True` where they are even. Clients are sent all variables.

    Attributes:
        strategy: The strategy within.
    """

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self._sent: ArrayRecord | None = None

    @abstractmethod
    def takes(self, name: str, array: Array) -> bool:
        """Return whether the strategy within aggregates a variable."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Make the messages of a round of training."""
        self._sent = arrays
        messages = self.strategy.configure_train(server_round, self._taken(arrays), config, grid)
        return self._with_others(messages, arrays)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Make the messages of a round of evaluation."""
        messages = self.strategy.configure_evaluate(server_round, self._taken(arrays), config, grid)
        return self._with_others(messages, arrays)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate checked replies (`checked_replies`), which are used up; the variables have dtypes as sent."""
        replies, sent = list(replies), self._sent
        others = {} if sent is None else self._mean_of_others(replies, sent)
        for reply in replies:
            for key, record in list(reply.content.array_records.items()):
                reply.content[key] = self._taken(record)
        arrays, metrics = self.strategy.aggregate_train(server_round, replies)
        if not arrays or sent is None:
            return None, metrics
        return joined(arrays, sent, others), metrics

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Aggregate checked replies to an evaluation."""
        return self.strategy.aggregate_evaluate(server_round, list(replies))

    def summary(self) -> None:
        """Log what the strategy is set to."""
        self.strategy.summary()

    def _taken(self, record: ArrayRecord) -> ArrayRecord:
        taken = {name: array for name, array in record.items() if self.takes(name, array)}
        return record if len(taken) == len(record) else ArrayRecord(taken)

    def _with_others(self, messages: Iterable[Message], sent: ArrayRecord) -> list[Message]:
        """Add the other variables to the messages; those who share a record share the new one."""
        messages = list(messages)
        if self._taken(sent) is sent:
            return messages
        made: dict[int, RecordDict] = {}
        for message in messages:
            content = message.content
            if id(content) not in made:
                made[id(content)] = RecordDict(
                    {
                        key: joined(held, sent) if isinstance(held, ArrayRecord) else held
                        for key, held in content.items()
                    }
                )
            message.content = made[id(content)]
        return messages

    def _mean_of_others(self, replies: list[Message], sent: ArrayRecord) -> dict[str, Array]:
        names = [name for name, array in sent.items() if not self.takes(name, array)]
        if not names or not replies:
            return {}
        weights = np.array([float(next(iter(reply.content.metric_records.values()))[EXAMPLES]) for reply in replies])
        records = [next(iter(reply.content.array_records.values())) for reply in replies]
        means = {}
        for name in names:
            values = [record[name].numpy() for record in records]
            means[name] = Array(_mean(values, weights))
        return means


class StepsOnTrainables(PartialStrategy):
    """Keeps a strategy that takes steps of its own from variables that are no parameters of the loss.

    A step, other than a mean, may make the moving variance of batch normalisation negative.

    Args:
        strategy: The strategy that takes steps.
        averaged: Names of the variables that are averaged plainly.
    """

    def __init__(self, strategy: Strategy, averaged: Collection[str]) -> None:
        super().__init__(strategy)
        self.averaged = frozenset(averaged)

    def takes(self, name: str, array: Array) -> bool:
        """Return whether a variable is trained."""
        return name not in self.averaged

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate, and forget what was sent: it is no state."""
        try:
            return super().aggregate_train(server_round, replies)
        finally:
            self._sent = None


def averaging_plainly(strategy: Strategy, averaged: Collection[str]) -> Strategy:
    """Return a strategy in which nothing takes steps of its own on some variables, wherever in it that would be.

    Args:
        strategy: Any, also one that wraps others.
        averaged: Names of variables that are not trained.
    """
    if not averaged or isinstance(strategy, StepsOnTrainables):
        return strategy
    if isinstance(strategy, _TAKE_STEPS):
        return StepsOnTrainables(strategy, averaged)
    inner: Any = getattr(strategy, "strategy", None)
    if isinstance(inner, Strategy):
        strategy.strategy = averaging_plainly(inner, averaged)
    return strategy


def joined(some: ArrayRecord, sent: ArrayRecord, others: Mapping[str, Array] | None = None) -> ArrayRecord:
    """Return all variables in the order and with the dtypes of those that were sent, the newest of each."""
    whole = {}
    for name, array in sent.items():
        new = some[name] if name in some else (others or {}).get(name, array)
        whole[name] = new if new.dtype == array.dtype else Array(in_dtype(new.numpy(), np.dtype(array.dtype)))
    return ArrayRecord(whole)


def _mean(values: Sequence[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Return the weighted mean of arrays in their type; where all are the same, just that."""
    first = values[0]
    if all(np.array_equal(first, value) for value in values[1:]):
        return first
    if first.dtype.kind not in "fbiu":
        raise ValueError(f"variables of dtype {first.dtype} cannot be averaged")
    # As differences from the first, integers of more digits than a floating-point number has keep all of theirs.
    wide = first.dtype.kind in "iu" and first.dtype.itemsize == 8
    origin = first.astype(object) if wide else np.zeros_like(first, "float64")
    differences = [np.asarray(value.astype(origin.dtype) - origin).astype("float64") for value in values]
    mean = np.tensordot(weights / weights.sum(), np.stack(differences), axes=1)
    if not wide:
        return in_dtype(mean, first.dtype)
    limits = np.iinfo(first.dtype)
    near = [
        min(max(start + round(float(step)), limits.min), limits.max)
        for start, step in zip(origin.flat, np.ravel(mean), strict=True)
    ]
    return np.array(near, dtype=first.dtype).reshape(first.shape)
