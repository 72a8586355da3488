"""How alike the updates of clients are, groups of clients by that, and how well these agree with the true ones."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

_AT_ONCE = 1 << 14  # elements of each update: enough for the product, few enough for the cache

Variables = Mapping[str, np.ndarray]
"""Variables by name."""


@dataclass(frozen=True)
class Similarity:
    """How alike the updates of n clients are.

    Attributes:
        cosines: Cosine of each pair of updates, n by n; 0 where one is zero.
        norms: Length of each update.
        mean_norm: Length of the mean of the updates, weighted by samples.
    """

    cosines: np.ndarray
    norms: np.ndarray
    mean_norm: float


def compared(names: Sequence[str], ignored: Sequence[str]) -> list[str]:
    """Return the variables whose updates are compared.

    Args:
        names: All variables.
        ignored: Patterns of those that tell the data's statistics and not what is learned from it.
    """
    return [name for name in names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in ignored)]


def similarity(
    updates: Sequence[Variables], names: Sequence[str], weights: Sequence[float], centred: bool
) -> Similarity:
    """Compare updates with each other.

    Only a part of one variable at a time is held in double precision, so this needs little memory beside the updates.

    Args:
        updates: The updates of the clients.
        names: The variables that count.
        weights: Samples of each client.
        centred: Whether to compare what is left of each update when the mean of them all is taken away: what the
            clients have in common tells nothing of groups, and in the first rounds it is most of an update.
    """
    shares = np.asarray(weights, "float64") / np.sum(weights)
    gram = np.zeros((len(updates), len(updates)))
    for name in names:
        flat = [np.ravel(update[name]) for update in updates]
        for start in range(0, flat[0].size, _AT_ONCE):
            part = np.array([each[start : start + _AT_ONCE] for each in flat], "float64")
            gram += part @ part.T
    gram = (gram + gram.T) / 2
    norms = np.sqrt(np.maximum(np.diag(gram), 0.0))
    mean_norm = float(np.sqrt(max(shares @ gram @ shares, 0.0)))
    if centred:
        centring = np.eye(len(updates)) - np.full((len(updates), 1), 1.0 / len(updates))
        gram = centring @ gram @ centring.T
    return Similarity(_cosines(gram, norms), norms, mean_norm)


def _cosines(gram: np.ndarray, norms: np.ndarray) -> np.ndarray:
    lengths = np.sqrt(np.maximum(np.diag(gram), 0.0))
    # What rounding alone left over of an update has no direction.
    lengths = np.where(lengths > 1e-12 * max(norms.max(initial=0.0), 1e-300), lengths, np.inf)
    cosines = np.clip(gram / np.outer(lengths, lengths), -1.0, 1.0)
    np.fill_diagonal(cosines, 1.0)
    return cosines


def separation(cosines: np.ndarray, labels: Sequence[int]) -> float:
    """Return mean cosine within groups less mean cosine across them; 0 where no group has two members.

    Noise alone gives about 0, opposite groups up to 2.
    """
    marks = np.asarray(labels)
    same = marks[:, None] == marks[None, :]
    others = ~np.eye(len(marks), dtype=bool)
    if not (same & others).any() or same.all():
        return 0.0
    return float(cosines[same & others].mean() - cosines[~same].mean())


def numbered_by_first(labels: Sequence[int]) -> list[int]:
    """Return labels numbered in the order in which they first come, so that they do not depend on an algorithm."""
    numbers: dict[int, int] = {}
    return [numbers.setdefault(int(label), len(numbers)) for label in labels]


def cosine(first: Variables, second: Variables, names: Sequence[str]) -> float:
    """Return the cosine of two sets of variables; 0 where one of them is zero."""
    product = lengths = others = 0.0
    for name in names:
        one = np.asarray(first[name], "float64").ravel()
        other = np.asarray(second[name], "float64").ravel()
        product += float(one @ other)
        lengths += float(one @ one)
        others += float(other @ other)
    return product / float(np.sqrt(lengths * others)) if lengths > 0 and others > 0 else 0.0


def bipartition(cosines: np.ndarray) -> list[int]:
    """Return the group (0 or 1) of each client such that the largest cosine across the groups is smallest.

    The most alike are joined first until two groups are left, which solves this min-max problem exactly: Sattler,
    Mueller and Samek, Clustered Federated Learning (2019), algorithm 1. The first client is in group 0.

    Args:
        cosines: Cosine of each pair of updates, n by n, n at least 2.
    """
    count = len(cosines)
    groups = np.arange(count)
    rows, columns = np.triu_indices(count, k=1)
    order = np.argsort(-cosines[rows, columns], kind="stable")
    left = count
    for row, column in zip(rows[order], columns[order], strict=True):
        if left == 2:
            break
        if groups[row] != groups[column]:
            groups[groups == groups[column]] = groups[row]
            left -= 1
    return [int(group != groups[0]) for group in groups]


def largest_across(cosines: np.ndarray, labels: list[int]) -> float:
    """Return the largest cosine of two clients of different groups."""
    marks = np.asarray(labels)
    return float(cosines[marks[:, None] != marks[None, :]].max())


def spectral_groups(cosines: np.ndarray, groups: int | None = None, most: int = 8) -> list[int]:
    """Return the group of each client; the first is in group 0.

    Edges of the graph are the positive cosines. The eigenvectors of its normalised adjacency are assigned to groups by
    QR with pivoting, which needs no starting point, so the same graph gives the same groups: Damle, Minden and Ying,
    Simple, direct and efficient multi-way spectral clustering (2019).

    Args:
        cosines: Cosine of each pair of updates, n by n.
        groups: How many groups; `None` for as many as lie before the largest gap between eigenvalues.
        most: The largest number of groups that a gap may give.
    """
    count = len(cosines)
    affinity = np.maximum(cosines, 0.0)
    np.fill_diagonal(affinity, 1.0)  # so that a client that is like no other is a group and not a division by zero
    scale = 1.0 / np.sqrt(affinity.sum(axis=1))
    values, vectors = np.linalg.eigh(affinity * np.outer(scale, scale))
    values, vectors = values[::-1], vectors[:, ::-1]
    if groups is None:
        groups = _before_largest_gap(values, min(most, count - 1))
    groups = min(groups, count)
    return numbered_by_first(_by_pivots(vectors[:, :groups]))


def _before_largest_gap(values: np.ndarray, most: int) -> int:
    if most < 1:
        return 1
    gaps = values[:most] - values[1 : most + 1]
    return int(np.argmax(gaps)) + 1


def _by_pivots(vectors: np.ndarray) -> np.ndarray:
    """Return the group of each row of n by k eigenvectors."""
    rest = vectors.copy()
    pivots = []
    for _ in range(vectors.shape[1]):
        lengths = np.round((rest**2).sum(axis=1), 12)  # equal ones are told apart by place, not by rounding
        pivot = int(np.argmax(lengths))
        pivots.append(pivot)
        direction = rest[pivot] / np.linalg.norm(rest[pivot])
        rest = rest - np.outer(rest @ direction, direction)
    left, _, right = np.linalg.svd(vectors[pivots].T)
    return np.argmax(np.round(np.abs(vectors @ (left @ right)), 12), axis=1)


def adjusted_rand_index(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Return the adjusted Rand index of two groupings of the same things: 1 for equal ones, about 0 for chance.

    Hubert and Arabie, Comparing partitions (1985).
    """
    pairs = comb(len(first), 2)
    both = sum(comb(count, 2) for count in Counter(zip(first, second, strict=True)).values())
    in_first = sum(comb(count, 2) for count in Counter(first).values())
    in_second = sum(comb(count, 2) for count in Counter(second).values())
    expected = in_first * in_second / pairs if pairs else 0.0
    highest = (in_first + in_second) / 2
    return 1.0 if highest == expected else (both - expected) / (highest - expected)
