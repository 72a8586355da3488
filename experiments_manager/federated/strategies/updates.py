"""Updates of clients, and how alike their directions are."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
