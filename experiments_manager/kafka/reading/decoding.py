"""Records to samples: many at a time, those that cannot be decoded set aside."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from experiments_manager.kafka.errors import RecordError
from experiments_manager.kafka.reading.rotation import FetchedRecords, Position
from experiments_manager.kafka.records.composite import concatenated
from experiments_manager.kafka.records.structure import Structure


class Decoder(Protocol):
    """What turns the values of records into samples."""

    structure: Structure

    def decode(self, records: Sequence[bytes]) -> tuple[Any, np.ndarray]:
        """Return the samples of records as a nest of arrays, and how many each record held."""


@dataclasses.dataclass(frozen=True)
class DecodedSamples:
    """The samples of some records.

    Attributes:
        leaves: Array of each leaf of the structure, the sample first.
        ends: For each record, how many samples it and those before it hold; int64.
        records: Where they come from.
        bad: Indices of the records that cannot be decoded, and why; they hold no samples.
        sizes: Bytes of each record, int64, where its value is not kept.
    """

    leaves: list[Any]
    ends: np.ndarray
    records: FetchedRecords
    bad: dict[int, str] = dataclasses.field(default_factory=dict)
    sizes: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    @functools.cached_property
    def record_bytes(self) -> np.ndarray:
        """Size of each record, int64."""
        if self.sizes is not None:
            return self.sizes
        values = self.records.values
        values = [value or b"" for value in values] if None in values else values
        return np.fromiter(map(len, values), np.int64, len(values))

    @property
    def nbytes(self) -> int:
        """Bytes of all samples in memory; of strings and of shapes that differ, those of the records."""
        sizes = [getattr(leaf, "nbytes", 0) for leaf in self.leaves]
        is_plain = all(isinstance(leaf, np.ndarray) and leaf.dtype != object for leaf in self.leaves)
        return sum(sizes) if is_plain else sum(sizes) + int(self.record_bytes.sum())

    def without_values(self) -> DecodedSamples:
        """Return them without the bytes that they were read from, which make up half of the memory."""
        return dataclasses.replace(self, records=dataclasses.replace(self.records, values=[]), sizes=self.record_bytes)

    def place(self, samples: int) -> tuple[Position, int]:
        """Return the position before the record in which a sample is, and how many samples of it come before.

        Args:
            samples: How many samples come before it, less than all.
        """
        before = int(np.searchsorted(self.ends, samples, side="right"))
        first = int(self.ends[before - 1]) if before else 0
        return self.records.position_after(before), samples - first

    def split(self, count: int) -> tuple[DecodedSamples, DecodedSamples | None]:
        """Return the first `count` records, and the others if there are any."""
        if count >= len(self.ends):
            return self, None
        records, cut, middle = self.records, int(self.ends[count - 1]), self.records.position_after(count)
        parts = []
        for where, samples, start, end in (
            (slice(None, count), slice(None, cut), records.start, middle),
            (slice(count, None), slice(cut, None), middle, records.end),
        ):
            of_part = FetchedRecords(
                records.values[where], records.partitions[where], records.offsets[where], start, end
            )
            ends = self.ends[where] - (cut if where.start else 0)
            shift = where.start or 0
            bad = {index - shift: why for index, why in self.bad.items() if 0 <= index - shift < len(ends)}
            sizes = None if self.sizes is None else self.sizes[where]
            parts.append(DecodedSamples([leaf[samples] for leaf in self.leaves], ends, of_part, bad, sizes))
        return parts[0], parts[1]

    @classmethod
    def concatenated(
        cls, parts: Sequence[DecodedSamples], join: Callable[[list[Any]], Any] = concatenated
    ) -> DecodedSamples:
        """Return the samples of several parts that follow each other.

        Args:
            parts: Of the same structure.
            join: Makes one array of those of a leaf.
        """
        leaves = [join(list(leaves)) for leaves in zip(*(part.leaves for part in parts if len(part)), strict=True)]
        starts = np.cumsum([0, *(len(part) for part in parts)])
        ends = np.concatenate([part.ends + start for part, start in zip(parts, starts[:-1], strict=True)])
        records = FetchedRecords(
            [value for part in parts for value in part.records.values],
            [number for part in parts for number in part.records.partitions],
            [offset for part in parts for offset in part.records.offsets],
            parts[0].records.start,
            parts[-1].records.end,
        )
        first = np.cumsum([0, *(len(part.ends) for part in parts)])
        bad = {
            index + int(start): why
            for part, start in zip(parts, first, strict=False)
            for index, why in part.bad.items()
        }
        sizes = None if any(part.sizes is None for part in parts) else np.concatenate([part.sizes for part in parts])
        return cls(leaves, ends, records, bad, sizes)


def decode(decoder: Decoder, records: FetchedRecords) -> DecodedSamples:
    """Return the samples of records; of those that cannot be decoded, why."""
    values, bad = records.values, {}
    try:
        nest, counts = decoder.decode(values)
    except RecordError:
        bad = find_bad(decoder.decode, values)
        good = [index for index in range(len(values)) if index not in bad]
        if not good:
            return DecodedSamples([], np.zeros(len(values), np.int64), records, bad)
        nest, of_good = decoder.decode([values[index] for index in good])
        counts = np.zeros(len(values), np.int64)
        counts[good] = of_good
    return DecodedSamples(decoder.structure.flatten(nest), counts.cumsum(), records, bad)


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
