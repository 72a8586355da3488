"""The strategy that a server works with: one of Flower's, for variables of any dtype, and with its state."""

from __future__ import annotations

import contextlib
import fnmatch
import gc
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvgM, FedYogi, QFedAvg, Strategy

from experiments_manager.federated.message_records import in_dtype
from experiments_manager.federated.strategies.clustered import Cluster, Clustered
from experiments_manager.federated.strategies.reply_checks import arrays_in, examples_of
from experiments_manager.federated.strategies.strategy_state import StrategyMemory

_TAKE_STEPS = (FedAdagrad, FedAdam, FedYogi, FedAvgM, QFedAvg)
_MINIMA = ("min_available_nodes", "min_train_nodes", "min_evaluate_nodes")
_VARIANCES = "*moving_variance"
_EXAMPLES = "samples told"
"""Under which the state has what clients told in earlier rounds."""


def layers_of(strategy: Any) -> Iterator[Any]:
    """Give a strategy and the strategies in it, from the outside: one that wraps another has it as `strategy`."""
    while strategy is not None:
        yield strategy
        strategy = getattr(strategy, "strategy", None)


def nodes_needed(strategy: Any, min_clients: int) -> int:
    """Return how many nodes must be there before a strategy can choose among them.

    Flower's strategies wait for them without an end and without asking whether to stop, so that is done before.

    Args:
        strategy: The strategy.
        min_clients: What the settings ask for.
    """
    minima = [getattr(layer, name, None) for layer in layers_of(strategy) for name in _MINIMA]
    return max(min_clients, *(minimum for minimum in minima if isinstance(minimum, int)), 0)


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
        weights = np.array([examples_of(reply) for reply in replies])
        records = [arrays_in(reply) for reply in replies]
        return {name: Array(_mean([record[name].numpy() for record in records], weights)) for name in names}


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
        self._memory = StrategyMemory(self.strategy)
        self._examples: dict[int, float] = {}

    def takes(self, name: str, array: Array) -> bool:
        """Return whether a variable is one of real numbers."""
        return is_float(array)

    @property
    def clustered(self) -> Clustered | None:
        """The strategy within that keeps clusters of clients; `None` where there is none."""
        return next((layer for layer in layers_of(self.strategy) if isinstance(layer, Clustered)), None)

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
        """Return what the strategy keeps from round to round, as what JSON can hold and as arrays (`StrategyMemory`).

        Raises:
            FederationError: It keeps something that cannot be stored.
        """
        plain, arrays = self._memory.state()
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
        self._memory.restore(plain, arrays)
        self._sent = sent

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate checked replies (`checked_replies`), which are used up; the variables have dtypes as sent."""
        with frozen_heap():
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
def frozen_heap() -> Iterator[None]:
    """Let garbage be looked for only among what is made inside.

    With TensorFlow in the process, each of Python's searches takes a tenth of a second, and some strategies of Flower
    ask for one a variable. Python itself searches so rarely then that the models of dozens of rounds would pile up, as
    messages refer to themselves.
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
