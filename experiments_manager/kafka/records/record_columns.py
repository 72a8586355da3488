"""The columns of a record: what each leaf of a structure writes, and its array again; docs/kafka.md has a table.

Whatever a record claims, nothing is made that it does not hold.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any

import numpy as np

from experiments_manager.kafka.errors import RecordError
from experiments_manager.kafka.records.composite import Ragged, Sparse, starts_of, sums
from experiments_manager.kafka.records.structure import Leaf

U4 = np.dtype("<u4")
"""Sizes and lengths in a record."""

I8 = np.dtype("<i8")
"""Places of sparse values in a record."""


@dataclasses.dataclass(frozen=True)
class Column:
    """One run of bytes in a record.

    Attributes:
        leaf: Number of the leaf to which it belongs.
        role: `dims` (sizes of the open dimensions; of a ragged leaf, of the first one), `rows 1`, `rows 2` … (lengths
            of the rows of further ragged dimensions), `counts` and `indices` (of sparse values), `lengths` (of
            strings), or `values`.
        width: Bytes a sample; `None` where that differs, and the record has a table of sizes.
    """

    leaf: int
    role: str
    width: int | None


@functools.cache
def columns_of(number: int, leaf: Leaf) -> list[Column]:
    """Return the columns of a leaf, in the order of the record."""
    widths: dict[str, int | None] = {}
    if leaf.open_dims:
        widths["dims"] = U4.itemsize * (1 if leaf.ragged else leaf.open_dims)
    widths |= {f"rows {level}": None for level in range(1, leaf.ragged)}
    if leaf.sparse:
        widths |= {"counts": U4.itemsize, "indices": None}
    if leaf.is_string:
        widths |= {"lengths": None if leaf.varies else U4.itemsize * leaf.size, "values": None}
    else:
        widths["values"] = None if leaf.varies else leaf.numpy_dtype.itemsize * leaf.size
    return [Column(number, role, width) for role, width in widths.items()]


def checked(leaf: Leaf, value: Any) -> Any:
    """Return the samples of a leaf as an array of its dtype, of objects where their shapes differ, ragged or sparse.

    Raises:
        RecordError: They do not fit.
    """
    if leaf.ragged or leaf.sparse:
        return _checked_composite(leaf, value)
    array = np.asarray(value)
    if leaf.open_dims and array.ndim == 1 and array.dtype == object:
        for sample in array:
            _require_fit(leaf, np.asarray(sample)[None])
        return array
    _require_fit(leaf, array)
    return array if leaf.is_string else array.astype(leaf.numpy_dtype, copy=False)


def _require_fit(leaf: Leaf, array: np.ndarray) -> None:
    if not (_sizes_fit(leaf.shape, array.shape[1:]) and array.ndim and _dtype_fits(leaf, array)):
        raise RecordError(f"The samples do not fit. Expected {leaf}, got {array.shape[1:]} {array.dtype}.")


def _checked_composite(leaf: Leaf, value: Any) -> Ragged | Sparse:
    if leaf.ragged:
        fits = isinstance(value, Ragged) and len(value.row_lengths) == leaf.ragged
        fits = fits and _sizes_fit(leaf.shape[leaf.ragged :], value.values.shape[1:])
        fits = fits and int(value.sizes.sum()) == len(value.values)
    else:
        fits = isinstance(value, Sparse) and _sizes_fit(leaf.shape, value.shape[1:])
        fits = fits and value.indices.shape == (len(value.values), len(value.shape))
    if not (fits and _dtype_fits(leaf, value.values)):
        raise RecordError(f"The samples do not fit. Expected {leaf}, got {type(value).__name__}: {value!r:.200}.")
    if leaf.sparse and (np.diff(value.indices[:, 0]) < 0).any():
        order = np.argsort(value.indices[:, 0], kind="stable")
        return Sparse(value.indices[order], value.values[order], value.shape)
    return value


def _sizes_fit(expected: Any, sizes: Any) -> bool:
    pairs = zip(expected, sizes, strict=False)
    return len(expected) == len(sizes) and all(size in (None, got) for size, got in pairs)


def _dtype_fits(leaf: Leaf, array: np.ndarray) -> bool:
    return array.dtype.kind in "SUO" if leaf.is_string else array.dtype.newbyteorder("=") == leaf.numpy_dtype


def contents(leaf: Leaf, array: Any, count: int) -> dict[str, Any]:
    """Return the contents of a leaf's columns: a matrix of bytes where they are fixed, else bytes for each record.

    Args:
        leaf: What the samples look like.
        array: The samples, as `checked` returned them.
        count: Samples in a record.
    """
    if not (leaf.varies or leaf.is_string):
        return {"values": np.ascontiguousarray(array).reshape(-1).view(np.uint8)}
    parts, sizes, values = _flat(leaf, array, count)
    if not leaf.is_string:
        return parts | {"values": _pieces(values.astype(leaf.numpy_dtype, copy=False), sizes, count)}
    texts = [_as_bytes(leaf, text) for text in values.tolist()]
    lengths = np.fromiter(map(len, texts), U4, len(texts))
    whole, stops = b"".join(texts), starts_of(lengths)[starts_of(sizes)[::count]]
    parts["lengths"] = _pieces(lengths, sizes, count) if leaf.varies else lengths.view(np.uint8)
    return parts | {"values": [whole[start:stop] for start, stop in itertools.pairwise(stops.tolist())]}


def _flat(leaf: Leaf, array: Any, count: int) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Return the columns before the values, how many values each sample has, and all of them in one dimension."""
    parts: dict[str, Any] = {}
    if isinstance(array, Ragged):
        sizes = array.row_lengths[0]
        parts["dims"] = _bytes(sizes)
        for number, level in enumerate(array.row_lengths[1:], 1):
            parts[f"rows {number}"] = _pieces(level.astype(U4), sizes, count)
            sizes = sums(level, sizes)
        return parts, sizes * leaf.size, array.values.reshape(-1)
    places = [place for place, size in enumerate(leaf.shape) if size is None]
    if isinstance(array, Sparse):
        if places:
            parts["dims"] = _bytes(np.broadcast_to(np.array(array.shape[1:])[places], (len(array), len(places))))
        indices = _pieces(array.indices[:, 1:].astype(I8, copy=False), array.sizes, count)
        return parts | {"counts": _bytes(array.sizes), "indices": indices}, array.sizes, array.values
    if not places:
        return parts, np.full(len(array), leaf.size, np.int64), array.reshape(-1)
    samples = [np.asarray(sample) for sample in array]
    parts["dims"] = _bytes(np.array([[sample.shape[place] for place in places] for sample in samples]))
    sizes = np.array([sample.size for sample in samples], np.int64)
    return parts, sizes, np.concatenate([sample.reshape(-1) for sample in samples])


def _bytes(sizes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(sizes, U4).view(np.uint8)


def _pieces(data: np.ndarray, sizes: np.ndarray, count: int) -> list[bytes]:
    """Return the bytes of each record, of samples that have so many of the data's rows each."""
    width = data.itemsize * int(np.prod(data.shape[1:]))
    whole, stops = data.tobytes(), starts_of(sizes)[::count] * width
    return [whole[start:stop] for start, stop in itertools.pairwise(stops.tolist())]


def _as_bytes(leaf: Leaf, text: Any) -> bytes:
    if isinstance(text, bytes):
        return text
    if isinstance(text, str):
        return text.encode()
    raise RecordError(f"{leaf.name} holds {text!r}. Expected text or bytes, got {type(text).__name__}.")


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
    values = _flat_values(leaf, part, count, sizes * leaf.size)
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
    values = _flat_values(leaf, part, count, sizes)
    return Sparse(np.column_stack([of_sample, indices]), values, (len(sizes), *dims.max(axis=0).tolist()))


def _open(leaf: Leaf, part: dict[str, Any], count: int) -> np.ndarray:
    """Return an array if all samples have the same shape, else one of objects."""
    dims = _dims(part, leaf.open_dims)
    _require_possible(leaf, dims.astype(np.float64).prod(axis=1) * leaf.size)
    sizes = dims.prod(axis=1) * leaf.size
    values = _flat_values(leaf, part, count, sizes)
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


def _flat_values(leaf: Leaf, part: dict[str, Any], count: int, sizes: np.ndarray) -> np.ndarray:
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
