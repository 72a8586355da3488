"""Batches of any size to batches that make whole records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from experiments_manager.kafka.records.composite import Ragged, Sparse, concatenated
from experiments_manager.kafka.records.structure import Structure


def sample_count(structure: Structure, batch: Any) -> int:
    """Return how many samples a batch has."""
    return len(structure.flatten(batch)[0])


def sample_slice(structure: Structure, batch: Any, start: int, stop: int) -> Any:
    """Return some samples of a batch."""
    return structure.pack([leaf[start:stop] for leaf in structure.flatten(batch)])


def regrouped(structure: Structure, batches: Iterable[Any], multiple: int) -> Iterator[Any]:
    """Yield the same samples in batches whose size is a multiple of a number; the last may have fewer.

    Args:
        structure: What the samples look like.
        batches: Nests of arrays. Where a dimension is open, they may differ in it.
        multiple: Samples in a record.
    """
    if multiple == 1:
        yield from batches
        return
    waiting: list[list[Any]] = []
    count = 0
    for batch in batches:
        waiting.append(structure.flatten(batch))
        count += len(waiting[-1][0])
        if count < multiple:
            continue
        leaves = _joined(waiting)
        whole = count - count % multiple
        yield structure.pack([leaf[:whole] for leaf in leaves])
        waiting, count = [[leaf[whole:] for leaf in leaves]] if count > whole else [], count - whole
    if count:
        yield structure.pack(_joined(waiting))


def _joined(parts: list[list[Any]]) -> list[Any]:
    return [concatenated([_as_array(piece) for piece in pieces]) for pieces in zip(*parts, strict=True)]


def _as_array(leaf: Any) -> Any:
    return leaf if isinstance(leaf, Ragged | Sparse) else np.asarray(leaf)
