"""The columns of a record: what each leaf of a structure writes, and its array made of that again."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from experiments_manager.kafka.errors import RecordError
from experiments_manager.kafka.structure import Leaf

U4 = np.dtype("<u4")
"""Sizes and lengths in a record."""

MOST_VALUES = 2**32
"""More values than a sample can have: sizes in bytes have 32 bits."""


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


@functools.cache
def columns_of(number: int, leaf: Leaf) -> list[Column]:
    """Return the columns of a leaf, in the order of the record."""
    columns = [Column(number, "dims", U4.itemsize * leaf.open_dims)] if leaf.open_dims else []
    if leaf.is_string:
        columns.append(Column(number, "lengths", None if leaf.open_dims else U4.itemsize * leaf.size))
        return [*columns, Column(number, "values", None)]
    return [*columns, Column(number, "values", None if leaf.open_dims else leaf.numpy_dtype.itemsize * leaf.size)]


def checked(leaf: Leaf, value: Any) -> np.ndarray:
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


def contents(leaf: Leaf, array: np.ndarray, count: int) -> dict[str, Any]:
    """Return the contents of a leaf's columns: a matrix of bytes where they are fixed, else bytes for each record."""
    parts: dict[str, Any] = {}
    groups: list[Any]
    if leaf.open_dims:
        samples = [np.asarray(sample) for sample in array]
        places = [place for place, size in enumerate(leaf.shape) if size is None]
        parts["dims"] = np.array([[sample.shape[place] for place in places] for sample in samples], U4).view(np.uint8)
        groups = [samples[start : start + count] for start in range(0, len(samples), count)]
    else:
        groups = [[array[start : start + count]] for start in range(0, len(array), count)] if leaf.is_string else []
    if leaf.is_string:
        texts = [[_as_bytes(leaf, text) for part in group for text in part.ravel().tolist()] for group in groups]
        lengths = [np.array([len(text) for text in of_record], U4) for of_record in texts]
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


def array_of(leaf: Leaf, part: dict[str, Any], count: int) -> np.ndarray:
    """Return the samples of a leaf from its columns."""
    if not leaf.open_dims:
        samples = len(part["lengths" if leaf.is_string else "values"]) * count
        values = _texts(leaf, part, count, np.full(samples, leaf.size)) if leaf.is_string else _numbers(leaf, part)
        return values.reshape(samples, *leaf.shape)
    dims = part["dims"].reshape(-1).view(U4).reshape(-1, leaf.open_dims).astype(np.int64)
    if (dims.astype(np.float64).prod(axis=1) * leaf.size > MOST_VALUES).any():
        raise RecordError(f"The sizes of {leaf.name} and its values do not agree.")
    sizes = dims.prod(axis=1) * leaf.size
    values = (_texts if leaf.is_string else _open_numbers)(leaf, part, count, sizes)
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


def _numbers(leaf: Leaf, part: dict[str, Any]) -> np.ndarray:
    """Return the values of a fixed column, a record in each row; a view of the records where it can be."""
    raw = part["values"]
    if leaf.numpy_dtype == np.bool_:
        return raw != 0
    values = raw.view(leaf.numpy_dtype)
    return values if values.flags.aligned else np.ascontiguousarray(raw).view(leaf.numpy_dtype)


def _open_numbers(leaf: Leaf, part: dict[str, Any], count: int, sizes: np.ndarray) -> np.ndarray:
    """Return all values of a leaf of open shape in one dimension; `sizes` says how many each sample has."""
    if (_in_record(sizes, count) * leaf.numpy_dtype.itemsize != part["values sizes"]).any():
        raise RecordError(f"The sizes of {leaf.name} and its values do not agree.")
    flat = np.frombuffer(part["values"], np.uint8)
    return flat != 0 if leaf.numpy_dtype == np.bool_ else flat.view(leaf.numpy_dtype)


def _texts(leaf: Leaf, part: dict[str, Any], count: int, sizes: np.ndarray) -> np.ndarray:
    """Return all strings of a leaf in one dimension; `sizes` says how many each sample has."""
    in_record, raw = _in_record(sizes, count), part["values"]
    if leaf.open_dims and (in_record * U4.itemsize != part["lengths sizes"]).any():
        raise RecordError(f"The sizes of {leaf.name} and its strings do not agree.")
    lengths = part["lengths"]
    lengths = np.frombuffer(lengths, U4) if isinstance(lengths, bytes) else lengths.reshape(-1).view(U4)
    stops = lengths.astype(np.int64).cumsum()
    records = np.concatenate([[0], stops])[np.concatenate([[0], in_record.cumsum()])]
    if (np.diff(records) != part["values sizes"]).any():
        raise RecordError(f"The lengths of {leaf.name} and its bytes do not agree.")
    texts = np.empty(len(lengths), object)
    texts[:] = [raw[stop - length : stop] for stop, length in zip(stops.tolist(), lengths.tolist(), strict=True)]
    return texts


def _in_record(sizes: np.ndarray, count: int) -> np.ndarray:
    return sizes.reshape(-1, count).sum(axis=1)
