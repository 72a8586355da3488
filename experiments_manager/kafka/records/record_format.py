"""Samples to the bytes of Kafka records and back, many records at a time; the layout is in docs/kafka.md.

`RecordFormat` knows the records of one structure, `TopicFormat` those of a topic whose structure has changed.

A record holds one sample or more, column by column: all values of the first leaf, then all of the second. Columns whose
width follows from the structure come first and lie at the same places in every record, so the records of a batch are
joined once, and each leaf is one view of the result. No TensorFlow is needed.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
import struct
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments_manager.kafka.errors import RecordError
from experiments_manager.kafka.records.buffers import BufferPool
from experiments_manager.kafka.records.composite import concatenated, runs, starts_of
from experiments_manager.kafka.records.record_columns import U4, array_of, checked, columns_of, contents
from experiments_manager.kafka.records.structure import FORMAT_VERSION, Structure

MAGIC = 0xE5
MOST_SAMPLES = 65535
"""Samples that one record can hold."""

_HEADER = struct.Struct("<BBHI")
_HEAD_OF = operator.itemgetter(slice(_HEADER.size))


@functools.lru_cache(maxsize=32)
def _packing(count: int, size: int) -> struct.Struct:
    """Return what joins so many records: `bytes.join`, but into memory that is there already."""
    return struct.Struct(f"{size}s" * count)


class RecordFormat:
    """Encodes and decodes the records of one structure.

    Args:
        structure: What each sample looks like.
    """

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        columns = [column for number, leaf in enumerate(structure.leaves) for column in columns_of(number, leaf)]
        self._fixed = [column for column in columns if column.width is not None]
        self._varying = [column for column in columns if column.width is None]
        self._values_start = _HEADER.size + U4.itemsize * len(self._varying)
        self._sample_width = sum(column.width for column in self._fixed)
        self._buffers = BufferPool()

    def encode(self, batch: Any, samples_per_record: int = 1) -> list[bytes]:
        """Return the records of a batch.

        Args:
            batch: A nest of arrays like the structure, the batch first, with `Ragged` and `Sparse` where it says so. A
                leaf with open dimensions may also be a one-dimensional array of objects, one array a sample.
            samples_per_record: How many samples share a record; the last one holds what is left.

        Raises:
            RecordError: An array does not fit the structure.
        """
        if not 1 <= samples_per_record <= MOST_SAMPLES:
            raise RecordError(f"Invalid samples per record. Expected 1 to {MOST_SAMPLES}, got {samples_per_record}.")
        leaves = self.structure.flatten(batch)
        arrays = [checked(leaf, value) for leaf, value in zip(self.structure.leaves, leaves, strict=True)]
        samples = len(arrays[0])
        if any(len(array) != samples for array in arrays):
            sizes = ", ".join(
                f"{leaf.name} {len(array)}" for leaf, array in zip(self.structure.leaves, arrays, strict=True)
            )
            raise RecordError(f"The arrays of a batch have different numbers of samples: {sizes}. Expected the same.")
        whole = samples - samples % samples_per_record
        records = self._encode([array[:whole] for array in arrays], samples_per_record) if whole else []
        rest = [array[whole:] for array in arrays]
        return records + (self._encode(rest, samples - whole) if samples > whole else [])

    def decode(self, records: Sequence[bytes]) -> tuple[Any, np.ndarray]:
        """Return the samples of records, in their order.

        Returns:
            The nest of arrays, the samples of all records first, and how many samples each record held, int64
            `[records]`. Strings are `bytes` objects. A leaf whose samples differ in shape is a one-dimensional array
            of objects, one array a sample; others are `Ragged` and `Sparse`. Arrays may be read-only, and views with
            gaps between their samples.

        Raises:
            RecordError: A record is malformed; `find_bad` tells which.
        """
        if not records:
            raise RecordError("No records to decode. Expected at least one.")
        try:
            return self._decode_all(records)
        except RecordError:
            raise
        except (ValueError, TypeError) as error:
            raise RecordError(f"The record is malformed: {error}.") from error

    def _decode_all(self, records: Sequence[bytes]) -> tuple[Any, np.ndarray]:
        count = self._samples_of(records[0][: _HEADER.size])
        rows = self._rows(records, count)
        if rows is not None:  # all have the head of the first one, as nearly always
            return self.structure.pack(self._decode(records, rows, count)), np.full(len(records), count, np.int64)
        leaves, counts = _decode_in_groups(records, _HEAD_OF, self._decode_group)
        return self.structure.pack(leaves), counts

    def _decode_group(self, records: list[bytes]) -> tuple[list[Any], np.ndarray]:
        """Return the leaves of records with the same head, and how many samples each held."""
        count = self._samples_of(records[0][: _HEADER.size])
        rows = self._rows(records, count)
        if rows is None:
            end, sizes = self._end(count), sorted(map(len, records))
            wrong = next((size for size in sizes if size < end or not self._varying and size != end), sizes[0])
            raise RecordError(f"The record has {wrong} bytes. Expected {end} for {count} samples.")
        return self._decode(records, rows, count), np.full(len(records), count, np.int64)

    def _samples_of(self, head: bytes) -> int:
        if len(head) < _HEADER.size or head[0] != MAGIC:
            raise RecordError(
                f"The record does not begin like one of experiments_manager: {head.hex(' ')}. "
                f"Expected {MAGIC:x} {FORMAT_VERSION:02x} …. Set kafka_format to what wrote it."
            )
        _, version, count, structure = _HEADER.unpack(head)
        if version != FORMAT_VERSION:
            raise RecordError(f"The record is of format {version}. Expected {FORMAT_VERSION}. Install a newer release.")
        if structure != self.structure.id:
            raise RecordError(
                f"The record has another structure. Expected {self.structure.id:08x}, got {structure:08x}."
            )
        if count == 0:
            raise RecordError("The record holds no samples. Expected at least one.")
        return count

    def _encode(self, arrays: list[np.ndarray], count: int) -> list[bytes]:
        """Return records of `count` samples each."""
        records = len(arrays[0]) // count
        parts = [contents(leaf, array, count) for leaf, array in zip(self.structure.leaves, arrays, strict=True)]
        varying = [parts[column.leaf][column.role] for column in self._varying]
        head = np.frombuffer(_HEADER.pack(MAGIC, FORMAT_VERSION, count, self.structure.id), np.uint8)
        sizes = np.array([[len(piece) for piece in pieces] for pieces in varying], U4).T
        matrix = [np.broadcast_to(head, (records, head.size))]
        matrix += [np.ascontiguousarray(sizes).view(np.uint8)] if varying else []
        matrix += [parts[column.leaf][column.role].reshape(records, -1) for column in self._fixed if column.width]
        rows = np.concatenate(matrix, axis=1)
        width, whole = rows.shape[1], rows.tobytes()
        fixed = [whole[start : start + width] for start in range(0, len(whole), width)]
        return [b"".join(pieces) for pieces in zip(fixed, *varying, strict=True)] if varying else fixed

    def _end(self, count: int) -> int:
        """Return where the fixed columns of a record of `count` samples end."""
        return self._values_start + count * self._sample_width

    def _rows(self, records: Sequence[bytes], count: int) -> np.ndarray | None:
        """Return heads and fixed columns of records as a matrix of bytes; nothing if heads or lengths differ."""
        end = self._end(count)
        whole = [record[:end] for record in records] if self._varying else records
        if max(map(len, whole)) != end or min(map(len, whole)) != end:
            return None
        rows = self._buffers.empty((len(records), end), np.dtype(np.uint8))
        _packing(len(records), end).pack_into(rows, 0, *whole)
        heads = rows[:, : _HEADER.size].copy().view(np.uint64)
        return rows if (heads == heads[0]).all() else None

    def _decode(self, records: Sequence[bytes], rows: np.ndarray, count: int) -> list[np.ndarray]:
        """Return the leaves of records of `count` samples each."""
        parts: list[dict[str, Any]] = [{} for _ in self.structure.leaves]
        start = self._values_start
        for column in self._fixed:
            width = count * column.width
            part = rows[:, start : start + width]
            # What makes up most of a record is not copied again, but no small column keeps all of it in memory.
            is_view = count == 1 and 2 * width > rows.shape[1]
            parts[column.leaf][column.role] = part if is_view else np.ascontiguousarray(part)
            start += width
        if self._varying:
            lengths = np.fromiter(map(len, records), np.int64, len(records))
            sizes = rows[:, _HEADER.size : self._values_start].copy().view(U4).astype(np.int64)
            ends = rows.shape[1] + sizes.cumsum(axis=1)
            if (lengths != ends[:, -1]).any():
                raise RecordError("The record's length and its table of sizes do not agree.")
            for column, size, stop in zip(self._varying, sizes.T, ends.T, strict=True):
                places = zip(records, (stop - size).tolist(), stop.tolist(), strict=True)
                parts[column.leaf][column.role] = b"".join([record[begin:stop] for record, begin, stop in places])
                parts[column.leaf][f"{column.role} sizes"] = size
        return [array_of(leaf, part, count) for leaf, part in zip(self.structure.leaves, parts, strict=True)]


MOST_ASKED = 100
"""How often structures are loaded again."""

_ID = slice(4, 8)
_BEGINNING = bytes([MAGIC, FORMAT_VERSION])


def structure_id(record: bytes | None) -> bytes:
    """Return the id of the structure that a record names, as it stands there; empty where it is no such record."""
    return record[_ID] if record and record.startswith(_BEGINNING) else b""


class TopicFormat:
    """Decodes the records of a topic.

    Records of an older structure are taken if their samples can pass for those of the newest one: the same nest, names
    and dtypes, and shapes that fit. All others are bad records.

    Args:
        structures: The structures of the topic by their id, the newest one last, as `load_structures` gives them.
        reload: Gives them again, where a record names a structure that may have been stored since. It is asked once
            an id and `MOST_ASKED` times in all: damaged records name any number of structures, and asking takes time.

    Attributes:
        structure: What each sample looks like: the newest of the structures. It stays when others are found.

    Raises:
        RecordError: There is no structure.
    """

    def __init__(
        self, structures: Mapping[int, Structure], reload: Callable[[], Mapping[int, Structure]] | None = None
    ) -> None:
        if not structures:
            raise RecordError(
                "The topic has no structure, so `kafka produce` did not write it. Expected one beside it, got none. "
                "Set kafka_format to what wrote its records, write a hook kafka_decode, or produce the topic again."
            )
        self.structure = list(structures.values())[-1]
        self._formats = {number: RecordFormat(structure) for number, structure in structures.items()}
        self._newest = self._formats[self.structure.id]
        self._newest_id = self.structure.id.to_bytes(4, "little")
        self._reload, self._asked = reload, set[int]()

    def decode(self, records: Sequence[bytes]) -> tuple[Any, np.ndarray]:
        """Return the samples of records, in their order; as `RecordFormat.decode`.

        Raises:
            RecordError: A record is malformed, or of another structure that does not fit; `find_bad` tells which.
        """
        if not records:
            raise RecordError("No records to decode. Expected at least one.")
        if None in (records[0], records[-1]):
            raise RecordError("The record has no value.")
        # Structures change rarely: where the first and the last record have the newest one, all have it, as a rule.
        if records[0][_ID] == records[-1][_ID] == self._newest_id:
            try:
                return self._newest.decode(records)
            except RecordError:
                if len({record[_ID] for record in records if record is not None}) == 1:
                    raise
        if None in records:
            raise RecordError("The record has no value.")
        leaves, counts = _decode_in_groups(records, operator.itemgetter(_ID), self._decode_group)
        return self.structure.pack(leaves), counts

    def format_of(self, record: bytes | None) -> RecordFormat:
        """Return the format of the structure that a record names.

        Where that is nowhere it is the newest one, which says what is wrong with the record.
        """
        identity = structure_id(record)
        number = int.from_bytes(identity, "little")
        is_asked = self._reload and len(identity) == 4 and number not in self._asked and len(self._asked) < MOST_ASKED
        if number not in self._formats and is_asked:
            self._asked.add(number)
            found = {new: RecordFormat(structure) for new, structure in self._reload().items()}
            self._formats = found | self._formats
        return self._formats.get(number, self._newest)

    def _decode_group(self, records: list[bytes]) -> tuple[list[Any], np.ndarray]:
        """Return the leaves of records that share a structure, in the order of the newest one, and their counts."""
        form = self.format_of(records[0])
        samples, counts = form.decode(records)
        if form is self._newest:
            return self.structure.flatten(samples), counts
        if _names(form.structure) != _names(self.structure):
            raise self._other(form.structure)
        leaves = self.structure.flatten(samples)
        try:
            leaves = [checked(leaf, array) for leaf, array in zip(self.structure.leaves, leaves, strict=True)]
        except RecordError as error:
            raise self._other(form.structure) from error
        return leaves, counts

    def _other(self, structure: Structure) -> RecordError:
        return RecordError(
            f"The record has another structure. Expected {self.structure}, got {structure}. "
            "Produce these samples to a topic of their own."
        )


def _names(structure: Structure) -> Any:
    """Return the nest with all at each leaf that must be the same: its rank, but not its sizes."""
    return structure.pack([dataclasses.replace(leaf, shape=(len(leaf.shape),)) for leaf in structure.leaves])


def _decode_in_groups(
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
