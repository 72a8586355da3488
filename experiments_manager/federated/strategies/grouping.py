"""Groups of clients by how alike their updates are, and how well they agree with those that are true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from math import comb

import numpy as np

from experiments_manager.federated.strategies.updates import numbered_by_first


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
