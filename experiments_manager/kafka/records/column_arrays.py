"""The array of a leaf, made of its columns again; whatever a record claims, nothing is made that it does not hold."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments_manager.kafka.errors import RecordError
from experiments_manager.kafka.records.columns import I8, U4
from experiments_manager.kafka.records.composite import Ragged, Sparse, starts_of, sums
from experiments_manager.kafka.records.structure import Leaf

MOST_VALUES = 2**32
"""More values than a sample can have: sizes in bytes have 32 bits."""


def array_of(leaf: Leaf, part: dict[str, Any], count: int) -> Any:
    """Return the samples of a leaf from its columns.

    Args:
        leaf: What the samples look like.
        part: By the columns' roles, a matrix of bytes with a row a record where they are fixed, else the bytes of all
            records; how many bytes of them each record has stands under the role and ` sizes`.
        count: Samples in a record.

    Raises:
        RecordError: Columns do not agree.
    """
    if leaf.ragged:
        return _ragged(leaf, part, count)
    if leaf.sparse:
        return _sparse(leaf, part, count)
    if leaf.open_dims:
        return _open(leaf, part, count)
    if leaf.is_string:
        samples = len(part["lengths"]) * count
        return _texts(leaf, part, count, np.full(samples, leaf.size)).reshape(samples, *leaf.shape)
    return _fixed(leaf, part["values"]).reshape(len(part["values"]) * count, *leaf.shape)


def _fixed(leaf: Leaf, raw: np.ndarray) -> np.ndarray:
    """Return the values of a fixed column, a record in each row; a view of the records where it can be."""
    if leaf.numpy_dtype == np.bool_:
        return raw != 0
    values = raw.view(leaf.numpy_dtype)
    return values if values.flags.aligned else np.ascontiguousarray(raw).view(leaf.numpy_dtype)


def _ragged(leaf: Leaf, part: dict[str, Any], count: int) -> Ragged:
    sizes = _dims(part, 1)[:, 0]
    levels = [sizes]
    for number in range(1, leaf.ragged):
        role = f"rows {number}"
        _require(leaf, _in_record(sizes, count) * U4.itemsize, part[f"{role} sizes"])
        levels.append(np.frombuffer(part[role], U4).astype(np.int64))
        sizes = sums(levels[-1], sizes)
    _require_possible(leaf, sizes.astype(np.float64) * leaf.size)
    values = _flat(leaf, part, count, sizes * leaf.size)
    return Ragged(values.reshape(int(sizes.sum()), *leaf.shape[leaf.ragged :]), tuple(levels))


def _sparse(leaf: Leaf, part: dict[str, Any], count: int) -> Sparse:
    sizes = part["counts"].reshape(-1).view(U4).astype(np.int64)
    rank = len(leaf.shape)
    _require(leaf, _in_record(sizes, count) * I8.itemsize * rank, part["indices sizes"])
    indices = np.frombuffer(part["indices"], I8).reshape(-1, rank)
    of_sample = np.repeat(np.arange(len(sizes)), sizes)
    dims = np.array([[size or 0 for size in leaf.shape]], np.int64).repeat(len(sizes), axis=0)
    if leaf.open_dims:
        dims[:, [place for place, size in enumerate(leaf.shape) if size is None]] = _dims(part, leaf.open_dims)
    if (indices < 0).any() or (indices >= dims[of_sample]).any():
        raise RecordError(f"The record holds values of {leaf.name} that are outside of its shape.")
    values = _flat(leaf, part, count, sizes)
    return Sparse(np.column_stack([of_sample, indices]), values, (len(sizes), *dims.max(axis=0).tolist()))


def _open(leaf: Leaf, part: dict[str, Any], count: int) -> np.ndarray:
    """Return an array if all samples have the same shape, else one of objects."""
    dims = _dims(part, leaf.open_dims)
    _require_possible(leaf, dims.astype(np.float64).prod(axis=1) * leaf.size)
    sizes = dims.prod(axis=1) * leaf.size
    values = _flat(leaf, part, count, sizes)
    shapes = []
    for row in dims[:1] if (dims == dims[0]).all() else dims:
        free = iter(row.tolist())
        shapes.append(tuple(next(free) if size is None else size for size in leaf.shape))
    if len(shapes) == 1:
        return values.reshape(len(dims), *shapes[0])
    samples = np.empty(len(dims), object)
    stops = starts_of(sizes).tolist()
    for index, shape in enumerate(shapes):
        samples[index] = values[stops[index] : stops[index + 1]].reshape(shape)
    return samples


def _dims(part: dict[str, Any], columns: int) -> np.ndarray:
    """Return the sizes of the open dimensions, int64 `[samples, columns]`."""
    return part["dims"].reshape(-1).view(U4).reshape(-1, columns).astype(np.int64)


def _flat(leaf: Leaf, part: dict[str, Any], count: int, sizes: np.ndarray) -> np.ndarray:
    """Return all values of a leaf in one dimension; `sizes` says how many each sample has."""
    if leaf.is_string:
        return _texts(leaf, part, count, sizes)
    _require(leaf, _in_record(sizes, count) * leaf.numpy_dtype.itemsize, part["values sizes"])
    flat = np.frombuffer(part["values"], np.uint8)
    return flat != 0 if leaf.numpy_dtype == np.bool_ else flat.view(leaf.numpy_dtype)


def _texts(leaf: Leaf, part: dict[str, Any], count: int, sizes: np.ndarray) -> np.ndarray:
    """Return all strings of a leaf in one dimension; `sizes` says how many each sample has."""
    in_record, raw = _in_record(sizes, count), part["values"]
    if leaf.varies:
        _require(leaf, in_record * U4.itemsize, part["lengths sizes"])
    lengths = part["lengths"]
    lengths = np.frombuffer(lengths, U4) if isinstance(lengths, bytes) else lengths.reshape(-1).view(U4)
    starts = starts_of(lengths)
    _require(leaf, np.diff(starts[starts_of(in_record)]), part["values sizes"])
    stops = starts.tolist()
    texts = np.empty(len(lengths), object)
    texts[:] = [raw[start:stop] for start, stop in zip(stops, stops[1:], strict=False)]
    return texts


def _in_record(sizes: np.ndarray, count: int) -> np.ndarray:
    return sizes.reshape(-1, count).sum(axis=1)


def _require_possible(leaf: Leaf, sizes: np.ndarray) -> None:
    """Raise `RecordError` for more values than a record can hold; they could not be counted in 64 bits either."""
    if (sizes > MOST_VALUES).any():
        raise RecordError(f"The record claims {sizes.max():.3g} values of {leaf.name}. Expected what it holds.")


def _require(leaf: Leaf, expected: np.ndarray, sizes: np.ndarray) -> None:
    if (expected != sizes).any():
        raise RecordError(f"The sizes of {leaf.name} and the bytes of its values do not agree.")
