"""The two strategies that cluster clients: by bipartition of cosines, and by the spectrum of their graph."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from experiments_manager.federated.strategies.clustered import STATISTICS, Clustered
from experiments_manager.federated.strategies.grouping import bipartition, largest_across, spectral_groups
from experiments_manager.federated.strategies.updates import Similarity, separation

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Rounds = Sequence[Annotated[int, Field(ge=1)]]


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
        eps1: Positive | None = None,
        eps2: Annotated[float, Field(ge=0)] = 0.0,
        gamma_max: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        split_rounds: Rounds | None = None,
        min_separation: Positive = 0.4,
        min_members: Count | None = None,
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
        split_rounds: Rounds = (3,),
        clusters_wanted: Annotated[int, Field(ge=2)] | None = None,
        most_clusters: Annotated[int, Field(ge=2)] = 8,
        min_separation: Positive = 0.4,
        min_members: Count = 2,
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
