"""Samples to the bytes of Kafka records and back, many records at a time; the layout is in docs/kafka.md.

A record holds one sample or more, column by column: all values of the first leaf, then all of the second. Columns whose
width follows from the structure come first and lie at the same places in every record, so the records of a batch are
joined once, and each leaf is one view of the result. No TensorFlow is needed.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments_manager.kafka.errors import RecordError
from experiments_manager.kafka.structure import FORMAT_VERSION, Leaf, Structure

MAGIC = 0xE5
MOST_SAMPLES = 65535
"""Samples that one record can hold."""

_HEADER = struct.Struct("<BBHI")
_HEAD_OF = operator.itemgetter(slice(_HEADER.size))
_U4 = np.dtype("<u4")


@dataclasses.dataclass(frozen=True)
class Column:
    """One run of bytes in a record.

    Attributes:
        leaf: Number of the leaf to which it belongs.
        role: `dims` (sizes of the open dimensions), `lengths` (of strings), or `values`.
        width: Bytes a sample; `None` where that differs, and the record has a table of sizes.
    """

    leaf: int
    role: str
    width: int | None


class RecordFormat:
    """Encodes and decodes the records of one structure.

    Args:
        structure: What each sample looks like.
    """

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        columns = [column for number, leaf in enumerate(structure.leaves) for column in _columns(number, leaf)]
        self._fixed = [column for column in columns if column.width is not None]
        self._varying = [column for column in columns if column.width is None]
        self._values_start = _HEADER.size + _U4.itemsize * len(self._varying)
        self._sample_width = sum(column.width for column in self._fixed)

    def encode(self, batch: Any, samples_per_record: int = 1) -> list[bytes]:
        """Return the records of a batch.

        Args:
            batch: A nest of arrays like the structure, the batch first. A leaf with open dimensions may also be a
                one-dimensional array of objects, one array a sample.
            samples_per_record: How many samples share a record; the last one holds what is left.

        Raises:
            RecordError: An array does not fit the structure.
        """
        if not 1 <= samples_per_record <= MOST_SAMPLES:
            raise RecordError(f"Invalid samples per record. Expected 1 to {MOST_SAMPLES}, got {samples_per_record}.")
        leaves = self.structure.flatten(batch)
        arrays = [_checked(leaf, value) for leaf, value in zip(self.structure.leaves, leaves, strict=True)]
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
            of objects, one array a sample. Arrays may be read-only.

        Raises:
            RecordError: A record is malformed; `bad_records` tells which.
        """
        runs, counts = [], []
        for head, run in itertools.groupby(records, _HEAD_OF):
            of_run = list(run)
            count = self._samples_of(head)
            try:
                runs.append(self._decode(of_run, count))
            except RecordError:
                raise
            except ValueError as error:
                raise RecordError(f"The record is malformed: {error}.") from error
            counts += [count] * len(of_run)
        if not runs:
            raise RecordError("No records to decode. Expected at least one.")
        leaves = runs[0] if len(runs) == 1 else [_concatenated(parts) for parts in zip(*runs, strict=True)]
        return self.structure.pack(leaves), np.array(counts, np.int64)

    def bad_records(self, records: Sequence[bytes | None]) -> dict[int, str]:
        """Return which of the records cannot be decoded, by their index, and why."""
        reasons = {}
        for index, record in enumerate(records):
            try:
                if record is None:
                    raise RecordError("The record has no value.")
                self.decode([record])
            except RecordError as error:
                reasons[index] = str(error)
        return reasons

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
        parts = [_parts(leaf, array, count) for leaf, array in zip(self.structure.leaves, arrays, strict=True)]
        varying = [parts[column.leaf][column.role] for column in self._varying]
        head = np.frombuffer(_HEADER.pack(MAGIC, FORMAT_VERSION, count, self.structure.id), np.uint8)
        sizes = np.array([[len(piece) for piece in pieces] for pieces in varying], _U4).T
        matrix = [np.broadcast_to(head, (records, head.size))]
        matrix += [np.ascontiguousarray(sizes).view(np.uint8)] if varying else []
        matrix += [parts[column.leaf][column.role].reshape(records, -1) for column in self._fixed if column.width]
        rows = np.concatenate(matrix, axis=1)
        width, whole = rows.shape[1], rows.tobytes()
        fixed = [whole[start : start + width] for start in range(0, len(whole), width)]
        return [b"".join(pieces) for pieces in zip(fixed, *varying, strict=True)] if varying else fixed

    def _decode(self, records: list[bytes], count: int) -> list[np.ndarray]:
        """Return the leaves of records of `count` samples each."""
        end = self._values_start + count * self._sample_width
        lengths = np.fromiter(map(len, records), np.int64, len(records))
        if self._varying:
            rows = np.frombuffer(b"".join([record[:end] for record in records]), np.uint8)
        else:
            rows = np.frombuffer(b"".join(records), np.uint8)
        if lengths.min() < end or rows.size != len(records) * end:
            raise RecordError(f"The record has {lengths.min()} bytes. Expected {end} for {count} samples.")
        rows = rows.reshape(len(records), end)
        sizes = np.ascontiguousarray(rows[:, _HEADER.size : self._values_start]).view(_U4).astype(np.int64)
        ends = end + sizes.cumsum(axis=1)
        if (lengths != (ends[:, -1] if self._varying else end)).any():
            raise RecordError("The record's length and its table of sizes do not agree.")
        parts: list[dict[str, Any]] = [{} for _ in self.structure.leaves]
        start = self._values_start
        for column in self._fixed:
            width = count * column.width
            parts[column.leaf][column.role] = np.ascontiguousarray(rows[:, start : start + width])
            start += width
        for column, size, stop in zip(self._varying, sizes.T, ends.T, strict=True):
            places = zip(records, (stop - size).tolist(), stop.tolist(), strict=True)
            parts[column.leaf][column.role] = b"".join([record[begin:stop] for record, begin, stop in places])
            parts[column.leaf][f"{column.role} sizes"] = size
        return [_array(leaf, part, count) for leaf, part in zip(self.structure.leaves, parts, strict=True)]


@functools.cache
def _columns(number: int, leaf: Leaf) -> list[Column]:
    """Return the columns of a leaf, in the order of the record."""
    columns = [Column(number, "dims", _U4.itemsize * leaf.open_dims)] if leaf.open_dims else []
    if leaf.is_string:
        columns.append(Column(number, "lengths", None if leaf.open_dims else _U4.itemsize * leaf.size))
        return [*columns, Column(number, "values", None)]
    return [*columns, Column(number, "values", None if leaf.open_dims else leaf.numpy_dtype.itemsize * leaf.size)]


def _checked(leaf: Leaf, value: Any) -> np.ndarray:
    """Return the samples of a leaf as an array of its dtype, or of objects where their shapes differ."""
    array = np.asarray(value)
    if leaf.open_dims and array.ndim == 1 and array.dtype == object:
        for sample in array:
            _require_fit(leaf, np.asarray(sample)[None])
        return array
    _require_fit(leaf, array)
    return array if leaf.is_string else array.astype(leaf.numpy_dtype, copy=False)


def _require_fit(leaf: Leaf, array: np.ndarray) -> None:
    fits = array.ndim == 1 + len(leaf.shape) and all(
        size in (None, got) for size, got in zip(leaf.shape, array.shape[1:], strict=True)
    )
    kind = array.dtype.kind in "SUO" if leaf.is_string else array.dtype.newbyteorder("=") == leaf.numpy_dtype
    if not (fits and kind):
        raise RecordError(f"The samples do not fit. Expected {leaf}, got {array.shape[1:]} {array.dtype}.")


def _parts(leaf: Leaf, array: np.ndarray, count: int) -> dict[str, Any]:
    """Return the contents of a leaf's columns: a matrix of bytes where they are fixed, else bytes for each record."""
    parts: dict[str, Any] = {}
    groups: list[Any]
    if leaf.open_dims:
        samples = [np.asarray(sample) for sample in array]
        places = [place for place, size in enumerate(leaf.shape) if size is None]
        parts["dims"] = np.array([[sample.shape[place] for place in places] for sample in samples], _U4).view(np.uint8)
        groups = [samples[start : start + count] for start in range(0, len(samples), count)]
    else:
        groups = [[array[start : start + count]] for start in range(0, len(array), count)] if leaf.is_string else []
    if leaf.is_string:
        texts = [[_as_bytes(leaf, text) for part in group for text in part.ravel().tolist()] for group in groups]
        lengths = [np.array([len(text) for text in of_record], _U4) for of_record in texts]
        if leaf.open_dims:
            parts["lengths"] = [of_record.tobytes() for of_record in lengths]
        else:
            parts["lengths"] = np.concatenate(lengths).view(np.uint8)
        parts["values"] = [b"".join(of_record) for of_record in texts]
    elif leaf.open_dims:
        dtype = leaf.numpy_dtype
        parts["values"] = [b"".join([part.astype(dtype, copy=False).tobytes() for part in group]) for group in groups]
    else:
        parts["values"] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return parts


def _as_bytes(leaf: Leaf, text: Any) -> bytes:
    if isinstance(text, bytes):
        return text
    if isinstance(text, str):
        return text.encode()
    raise RecordError(f"{leaf.name} holds {text!r}. Expected text or bytes, got {type(text).__name__}.")


def _array(leaf: Leaf, part: dict[str, Any], count: int) -> np.ndarray:
    """Return the samples of a leaf from its columns."""
    if not leaf.open_dims:
        samples = len(part["lengths" if leaf.is_string else "values"]) * count
        shape = (samples, *leaf.shape)
        return _values(leaf, part, count, np.full(samples, leaf.size)).reshape(shape)
    dims = part["dims"].reshape(-1).view(_U4).reshape(-1, leaf.open_dims).astype(np.int64)
    sizes = dims.prod(axis=1) * leaf.size
    values = _values(leaf, part, count, sizes)
    shapes = []
    for row in np.unique(dims, axis=0) if (dims == dims[0]).all() else dims:
        free = iter(row.tolist())
        shapes.append(tuple(next(free) if size is None else size for size in leaf.shape))
    if len(shapes) == 1:
        return values.reshape(len(dims), *shapes[0])
    samples = np.empty(len(dims), object)
    for index, (piece, shape) in enumerate(zip(np.split(values, sizes.cumsum()[:-1]), shapes, strict=True)):
        samples[index] = piece.reshape(shape)
    return samples


def _values(leaf: Leaf, part: dict[str, Any], count: int, sizes: np.ndarray) -> np.ndarray:
    """Return all values of a leaf in one dimension; `sizes` says how many each sample has."""
    raw = part["values"]
    in_record = sizes.reshape(-1, count).sum(axis=1)
    if not leaf.is_string:
        if leaf.open_dims and (in_record * leaf.numpy_dtype.itemsize != part["values sizes"]).any():
            raise RecordError(f"The sizes of {leaf.name} and its values do not agree.")
        flat = np.frombuffer(raw, np.uint8) if isinstance(raw, bytes) else raw.reshape(-1)
        return flat != 0 if leaf.numpy_dtype == np.bool_ else flat.view(leaf.numpy_dtype)
    if leaf.open_dims and (in_record * _U4.itemsize != part["lengths sizes"]).any():
        raise RecordError(f"The sizes of {leaf.name} and its strings do not agree.")
    lengths = part["lengths"]
    lengths = np.frombuffer(lengths, _U4) if isinstance(lengths, bytes) else lengths.reshape(-1).view(_U4)
    stops = lengths.astype(np.int64).cumsum()
    records = np.concatenate([[0], stops])[np.concatenate([[0], in_record.cumsum()])]
    if (np.diff(records) != part["values sizes"]).any():
        raise RecordError(f"The lengths of {leaf.name} and its bytes do not agree.")
    texts = np.empty(len(lengths), object)
    texts[:] = [raw[stop - length : stop] for stop, length in zip(stops.tolist(), lengths.tolist(), strict=True)]
    return texts


def _concatenated(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return one array of several; of objects if their samples differ in shape."""
    if len({(part.shape[1:], part.dtype) for part in parts}) == 1:
        return np.concatenate(parts)
    samples = np.empty(sum(map(len, parts)), object)
    for index, sample in enumerate(itertools.chain.from_iterable(parts)):
        samples[index] = sample
    return samples
