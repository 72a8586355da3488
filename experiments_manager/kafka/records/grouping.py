"""Decoding records of several kinds that come in any order, each kind at once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from experiments_manager.kafka.records.composite import concatenated, runs, starts_of


def decode_in_groups(
    records: Sequence[bytes],
    kind_of: Callable[[bytes], Hashable],
    decode: Callable[[list[bytes]], tuple[list[Any], np.ndarray]],
) -> tuple[list[Any], np.ndarray]:
    """Return the leaves of records, in their order, and how many samples each record held.

    Args:
        records: At least one record.
        kind_of: Tells which records can be decoded together.
        decode: Returns the leaves of such records, and how many samples each of them held.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, record in enumerate(records):
        groups.setdefault(kind_of(record), []).append(index)
    parts, counts = zip(*(decode([records[index] for index in group]) for group in groups.values()), strict=True)
    if len(groups) == 1:
        return parts[0], counts[0]
    leaves = [concatenated(pieces) for pieces in zip(*parts, strict=True)]
    counts = np.concatenate(counts)
    places = np.concatenate(list(groups.values()))  # of the records, in the order in which they were decoded
    order = places.argsort()
    if (np.diff(places) > 0).all():
        return leaves, counts
    samples = runs(starts_of(counts)[:-1][order], counts[order])
    return [leaf[samples] for leaf in leaves], counts[order]
