"""Decoding many records at once: those of each kind together, and the few bad ones found among them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from experiments_manager.kafka.errors import RecordError
from experiments_manager.kafka.records.composite import concatenated, runs, starts_of


def find_bad(decode: Callable[[list[bytes]], Any], records: Sequence[bytes | None]) -> dict[int, str]:
    """Return which of the records cannot be decoded, by their index, and why.

    Halves are decoded and halved again, so that few bad ones among many good ones cost a few decodings of all of them.

    Args:
        decode: Decodes records that have a value; raises `RecordError` if one of them is bad.
        records: Values of messages; those that are `None` are bad.
    """
    reasons = {index: "The record has no value." for index, record in enumerate(records) if record is None}
    there = [(index, record) for index, record in enumerate(records) if record is not None]
    waiting = [there] if there else []
    while waiting:
        some = waiting.pop()
        try:
            decode([record for _, record in some])
        except RecordError as error:
            if len(some) == 1:
                reasons[some[0][0]] = str(error)
            else:
                middle = len(some) // 2
                waiting += [some[middle:], some[:middle]]
    return dict(sorted(reasons.items()))


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
