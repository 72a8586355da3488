"""Groups of clients by the spectrum of the graph of how alike their updates are."""

from __future__ import annotations

import numpy as np

from experiments_manager.federated.strategies.updates import numbered_by_first


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
