"""Clustered federated learning: clients whose updates point different ways get models of their own."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from experiments_manager.federated.message_records import to_arrays, to_record
from experiments_manager.federated.strategies.grouping import (
    Similarity,
    adjusted_rand_index,
    bipartition,
    compared,
    cosine,
    largest_across,
    separation,
    similarity,
    spectral_groups,
)
from experiments_manager.federated.strategies.reply_checks import arrays_in, examples_of, proc_id_of

STATISTICS = ("*moving_mean", "*moving_variance")
_JOINS_AT = 0.1  # chance gives less to a newcomer's cosine in any model of more than a few hundred variables


@dataclass(frozen=True)
class Cluster:
    """Clients that share a model.

    Attributes:
        proc_ids: Their numbers.
        examples: Samples that they have together.
        arrays: The variables of their model.
    """

    proc_ids: tuple[int, ...]
    examples: float
    arrays: ArrayRecord


@dataclass
class _Answer:
    """What one client sent in a round, and the cluster whose model it began with."""

    proc_id: int
    began: int
    reply: Message
    update: dict[str, np.ndarray]
    examples: float


class Clustered(FedAvg):
    """Averages within clusters of clients, which split when `groups` says so.

    Everybody begins in one cluster, and all is as with `FedAvg` as long as there is no other. Membership is by the
    clients' own numbers (`proc-id`), as Flower's ids of nodes change when a SuperNode starts again. A client whose
    number is not known yet gets the model of the biggest cluster; after its first update it joins the cluster to whose
    model that update leads. A reply that began with the model of another cluster is not averaged. What
    `aggregate_train` returns is the mean of the clusters' models, weighted by the samples of their members.

    Attributes:
        history: A dictionary for each split: `round`, `cluster` (its index), `proc_ids`, `groups` (lists of numbers),
            `cosines` (of the updates of `proc_ids`), `separation`.
        measures: A dictionary for each cluster that answered in the last round: `round`, `cluster`, `mean_norm` (of the
            mean update) and `max_norm` (of the clients' updates), by which thresholds may be chosen.
    """

    def __init__(self, *, centred: bool, ignored: Sequence[str], **flower: Any) -> None:
        super().__init__(**flower)
        self.centred = centred
        self.ignored = tuple(ignored)
        self.history: list[dict[str, Any]] = []
        self.measures: list[dict[str, Any]] = []
        self._models: list[dict[str, np.ndarray]] = []
        self._members: dict[int, int] = {}
        self._examples: dict[int, float] = {}
        self._proc_ids: dict[int, int] = {}
        self._sent: dict[int, int] = {}

    @abstractmethod
    def groups(self, server_round: int, alike: Similarity) -> tuple[list[int], float] | None:
        """Return the group of each client of a cluster, numbered from 0, and how separate they are.

        `None` leaves the cluster whole.
        """

    @property
    def clusters(self) -> list[Cluster]:
        """The clusters, in an order that splits do not change: new ones come last."""
        return [
            Cluster(self._members_of(index), self._examples_of(index), to_record(model))
            for index, model in enumerate(self._models)
        ]

    def score(self, truth: Mapping[int, Hashable]) -> float:
        """Return the adjusted Rand index of the clusters: 1 where they are just the true groups.

        Args:
            truth: The true group of each client by its number; only clients that have answered count.
        """
        known = [number for number in sorted(self._members) if number in truth]
        return adjusted_rand_index([self._members[number] for number in known], [truth[number] for number in known])

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send each client the model of its cluster."""
        if len(self._models) < 2:
            self._models = [to_arrays(arrays)]
        messages = self._with_models(super().configure_train(server_round, arrays, config, grid))
        self._sent = {message.metadata.dst_node_id: self._cluster_at(message) for message in messages}
        return messages

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Send each client the model of its cluster."""
        return self._with_models(super().configure_evaluate(server_round, arrays, config, grid))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Place newcomers, split clusters, and average within each; return the mean of all models."""
        answers = self._answers(replies)
        if not answers:
            return None, None
        self._place_newcomers(answers)
        self.measures = []
        origin = list(range(len(self._models)))
        for index in list(origin):
            self._split(server_round, index, answers, origin)
        only = None
        for index, began in enumerate(origin):
            own = [each.reply for each in answers if self._members.get(each.proc_id) == index and each.began == began]
            only, _ = super().aggregate_train(server_round, own) if own else (None, None)
            if only is not None:
                before = self._models[index]
                self._models[index] = {
                    name: np.asarray(array.numpy(), before[name].dtype) for name, array in only.items()
                }
        metrics = self.train_metrics_aggr_fn([each.reply.content for each in answers], self.weighted_by_key)
        return only if len(self._models) == 1 else self._mean_model(), metrics

    def _with_models(self, messages: Iterable[Message]) -> list[Message]:
        messages = list(messages)
        if len(self._models) < 2:
            return messages
        made: dict[int, RecordDict] = {}
        for message in messages:
            index = self._cluster_at(message)
            if index not in made:
                config = message.content[self.configrecord_key]
                made[index] = RecordDict(
                    {self.arrayrecord_key: to_record(self._models[index]), self.configrecord_key: config}
                )
            message.content = made[index]
        return messages

    def _cluster_at(self, message: Message) -> int:
        number = self._proc_ids.get(message.metadata.dst_node_id)
        return self._biggest() if number is None else self._members.get(number, self._biggest())

    def _biggest(self) -> int:
        sizes = [(len(self._members_of(index)), self._examples_of(index)) for index in range(len(self._models))]
        return sizes.index(max(sizes))

    def _members_of(self, index: int) -> tuple[int, ...]:
        return tuple(sorted(number for number, cluster in self._members.items() if cluster == index))

    def _examples_of(self, index: int) -> float:
        return float(sum(self._examples[number] for number in self._members_of(index)))

    def _answers(self, replies: Iterable[Message]) -> list[_Answer]:
        """Return what clients sent, by their numbers; those whose number is not told are passed over."""
        answers = []
        for reply in replies:
            number, node_id = proc_id_of(reply), reply.metadata.src_node_id
            if number is None or node_id not in self._sent:
                continue
            began = self._sent[node_id]
            values = to_arrays(arrays_in(reply))
            update = {name: values[name] - before for name, before in self._models[began].items()}
            examples = examples_of(reply)
            answers.append(_Answer(number, began, reply, update, examples))
            self._proc_ids[node_id] = number
            self._examples[number] = examples
        return sorted(answers, key=lambda answer: answer.proc_id)

    def _place_newcomers(self, answers: list[_Answer]) -> None:
        old = [answer for answer in answers if self._members.get(answer.proc_id) == answer.began]
        for answer in answers:
            if answer.proc_id not in self._members:
                self._members[answer.proc_id] = self._nearest(
                    answer, [each for each in old if each.began == answer.began]
                )

    def _nearest(self, newcomer: _Answer, old: list[_Answer]) -> int:
        """Return the cluster to whose model the update of a newcomer leads, more than those of the members do."""
        began = self._models[newcomer.began]
        names = compared(list(began), self.ignored)
        total = sum(each.examples for each in old)
        own = {
            name: newcomer.update[name] - sum((each.update[name] * (each.examples / total) for each in old), 0.0)
            for name in names
        }
        best, nearest = _JOINS_AT, newcomer.began
        for index, model in enumerate(self._models):
            if index != newcomer.began:
                way = {name: model[name] - began[name] for name in names}
                alike = min(cosine(newcomer.update, way, names), cosine(own, way, names))
                best, nearest = (alike, index) if alike > best else (best, nearest)
        return nearest

    def _split(self, server_round: int, index: int, answers: list[_Answer], origin: list[int]) -> None:
        own = [each for each in answers if each.began == index and self._members.get(each.proc_id) == index]
        if not own:
            return
        names = compared(list(self._models[index]), self.ignored)
        weights = [each.examples for each in own]
        alike = similarity([each.update for each in own], names, weights, self.centred)
        self.measures.append(
            {
                "round": server_round,
                "cluster": index,
                "mean_norm": alike.mean_norm,
                "max_norm": float(alike.norms.max()),
            }
        )
        found = self.groups(server_round, alike) if len(own) > 1 else None
        if found is None:
            return
        labels, apart = found
        numbers = [each.proc_id for each in own]
        for number in set(self._members_of(index)) - set(numbers):
            del self._members[number]  # to which part it belongs is seen when it answers again
        first_new = len(self._models)
        for number, label in zip(numbers, labels, strict=True):
            self._members[number] = index if label == 0 else first_new + label - 1
        for _ in range(max(labels)):
            self._models.append(dict(self._models[index]))
            origin.append(index)
        self.history.append(
            {
                "round": server_round,
                "cluster": index,
                "proc_ids": numbers,
                "groups": [
                    [n for n, each in zip(numbers, labels, strict=True) if each == k] for k in range(max(labels) + 1)
                ],
                "cosines": alike.cosines.tolist(),
                "separation": apart,
            }
        )

    def _mean_model(self) -> ArrayRecord:
        examples = np.array([self._examples_of(index) for index in range(len(self._models))])
        shares = (examples / examples.sum()).tolist()
        return to_record(
            {
                name: sum(model[name] * share for model, share in zip(self._models, shares, strict=True))
                for name in self._models[0]
            }
        )


class ClusteredCosine(Clustered):
    """Split a cluster in two when its model stands still for the clients on average, but not for each of them.

    Sattler, Mueller and Samek, Clustered Federated Learning (2019): a cluster is split where the mean update is shorter
    than `eps1` while the longest update is longer than `eps2`, into the two groups whose updates are most unlike.

    Args:
        eps1: Length of the mean update below which a cluster may split; `None` for half of the longest update.
        eps2: Length of the longest update above which a cluster may split.
        gamma_max: The paper's bound on noise: sqrt((1 - largest cosine across) / 2) must be more.
        split_rounds: Rounds at which clusters may split, whatever the lengths of updates are; `None` for any round in
            which `eps1` and `eps2` allow it.
        min_separation: How much larger the mean cosine within groups must be than that across them; noise gives about
            0. Without `centred`, groups whose largest cosine across is below its negative are separate too.
        min_members: The smallest group that may split off; `None` for 2 where updates are centred, else 1.
        centred: Whether what all updates have in common is taken away before they are compared; `None`: if
            `split_rounds` are given, as the common part is most of an update while the model still learns.
        ignored: Patterns of the names of variables that are not compared.
        flower: What `FedAvg` takes.
    """

    def __init__(
        self,
        *,
        eps1: float | None = None,
        eps2: float = 0.0,
        gamma_max: float = 0.0,
        split_rounds: Sequence[int] | None = None,
        min_separation: float = 0.4,
        min_members: int | None = None,
        centred: bool | None = None,
        ignored: Sequence[str] = STATISTICS,
        **flower: Any,
    ) -> None:
        super().__init__(centred=split_rounds is not None if centred is None else centred, ignored=ignored, **flower)
        self.eps1 = eps1
        self.eps2 = eps2
        self.gamma_max = gamma_max
        self.split_rounds = None if split_rounds is None else tuple(split_rounds)
        self.min_separation = min_separation
        # Of a few centred updates of noise, one always seems to be alone.
        self.min_members = min_members or (2 if self.centred else 1)

    def groups(self, server_round: int, alike: Similarity) -> tuple[list[int], float] | None:
        """Return two groups where the cluster is to split."""
        if not self._may_split(server_round, alike):
            return None
        labels = bipartition(alike.cosines)
        across = largest_across(alike.cosines, labels)
        apart = separation(alike.cosines, labels)
        opposite = not self.centred and across <= -self.min_separation
        separate = (apart >= self.min_separation or opposite) and math.sqrt((1 - across) / 2) > self.gamma_max
        return (labels, apart) if separate and min(Counter(labels).values()) >= self.min_members else None

    def _may_split(self, server_round: int, alike: Similarity) -> bool:
        if self.split_rounds is not None:
            return server_round in self.split_rounds
        longest = float(alike.norms.max())
        return alike.mean_norm < (0.5 * longest if self.eps1 is None else self.eps1) and longest > self.eps2


class ClusteredSpectral(Clustered):
    """Split clusters at given rounds by spectral clustering of the graph of their clients.

    The edges are the cosines of updates from which their mean was taken away.

    Args:
        split_rounds: Rounds at which clusters may split.
        clusters_wanted: How many clusters there shall be, all from the first split; `None` for as many as the largest
            gap between the eigenvalues says, at each of the rounds and for each cluster.
        most_clusters: The largest number that a gap may say.
        min_separation: How much larger the mean cosine within groups must be than that across them; noise gives about
            0.
        min_members: The smallest group that may split off.
        ignored: Patterns of the names of variables that are not compared.
        flower: What `FedAvg` takes.
    """

    def __init__(
        self,
        *,
        split_rounds: Sequence[int] = (3,),
        clusters_wanted: int | None = None,
        most_clusters: int = 8,
        min_separation: float = 0.4,
        min_members: int = 2,
        ignored: Sequence[str] = STATISTICS,
        **flower: Any,
    ) -> None:
        super().__init__(centred=True, ignored=ignored, **flower)
        self.split_rounds = tuple(split_rounds)
        self.clusters_wanted = clusters_wanted
        self.most_clusters = most_clusters
        self.min_separation = min_separation
        self.min_members = min_members

    def groups(self, server_round: int, alike: Similarity) -> tuple[list[int], float] | None:
        """Return the groups where the cluster is to split."""
        done = self.clusters_wanted is not None and bool(self.history)
        if done or server_round not in self.split_rounds:
            return None
        labels = spectral_groups(alike.cosines, self.clusters_wanted, self.most_clusters)
        apart = separation(alike.cosines, labels)
        sizes = Counter(labels)
        separate = len(sizes) > 1 and apart >= self.min_separation
        return (labels, apart) if separate and min(sizes.values()) >= self.min_members else None
