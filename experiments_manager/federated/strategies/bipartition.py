"""Two groups of clients whose updates are as unlike across the groups as they can be."""

from __future__ import annotations

import numpy as np


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
