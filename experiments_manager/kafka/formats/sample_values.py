"""Samples that come one by one as Python values, made into arrays; their structure follows from the first ones."""

from __future__ import annotations

import contextlib
import dataclasses
import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments_manager.kafka.errors import RecordError
from experiments_manager.kafka.records.structure import ArraySpec, Leaf, Structure

_OF_PYTHON = {"int64", "float32"}
"""The dtypes of Python's numbers, of which some records hold `3` and others `3.5` in the same field."""

_DEEPEST = 32
_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxlist, _REPR.maxstring, _REPR.maxother = 3, 8, 60, 60
_HOOK = "Write a kafka_decode hook."


def structure_of(sample: Any) -> Structure:
    """Return the structure of one sample: `x`, `(x, y)` or `(x, y, weight)`, without a batch dimension.

    Integers are int64, other numbers float32, text and bytes strings; arrays keep their dtype. A list is an array,
    unless it holds arrays, dictionaries or tuples.

    Raises:
        RecordError: It holds something else.
    """
    return Structure.of_spec(_map(sample, _spec))


def merged(one: Structure, other: Structure) -> Structure | None:
    """Return the structure that the samples of both have, with open dimensions where sizes differ; nothing if none."""
    if one.pack([leaf.name for leaf in one.leaves]) != other.pack([leaf.name for leaf in other.leaves]):
        return None
    others = {leaf.name: leaf for leaf in other.leaves}
    leaves = [_merged_leaf(leaf, others[leaf.name]) for leaf in one.leaves]
    return None if None in leaves else Structure(one.nest, tuple(leaf for leaf in leaves if leaf is not None))


def stacked(structure: Structure, samples: Sequence[Any]) -> Any:
    """Return the nest of arrays of samples, the batch first.

    A leaf whose samples differ in shape is a one-dimensional array of objects, one array a sample.

    Raises:
        RecordError: A sample does not fit the structure.
    """
    columns = zip(*(structure.flatten(sample) for sample in samples), strict=True)
    arrays = [_array(leaf, list(values)) for leaf, values in zip(structure.leaves, columns, strict=True)]
    return structure.pack(arrays)


def _map(sample: Any, function: Any, depth: int = 0) -> Any:
    """Return the sample with each of its arrays and values replaced; what holds nothing but values is one."""
    if depth > _DEEPEST:
        raise RecordError(f"The record is nested more than {_DEEPEST} deep. {_HOOK}")
    if sample is None:
        return None
    if isinstance(sample, dict):
        return {key: _map(value, function, depth + 1) for key, value in sample.items()}
    if isinstance(sample, tuple):
        return tuple(_map(value, function, depth + 1) for value in sample)
    if isinstance(sample, list) and any(isinstance(value, dict | tuple) or hasattr(value, "shape") for value in sample):
        return [_map(value, function, depth + 1) for value in sample]
    return function(sample)


def _spec(value: Any) -> ArraySpec:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise RecordError(
            f"Lists of different lengths are no array: {_short(value)}. Write a kafka_decode hook."
        ) from error
    if array.dtype.kind in "SU" or (array.dtype == object and array.size and all(map(_is_text, array.flat))):
        return ArraySpec((None, *array.shape), "string")
    if array.dtype == object:
        raise RecordError(
            f"The value {_short(value)} is of type {type(value).__name__}. Expected numbers, text, or lists of them. "
            + _HOOK
        )
    is_python = not hasattr(value, "dtype")
    return ArraySpec((None, *array.shape), "float32" if is_python and array.dtype.kind == "f" else array.dtype.name)


def _merged_leaf(one: Leaf, other: Leaf) -> Leaf | None:
    if one.dtype == other.dtype:
        dtype = one.dtype
    elif {one.dtype, other.dtype} == _OF_PYTHON:
        dtype = "float32"
    else:
        return None
    if len(one.shape) != len(other.shape):
        return None
    shape = tuple(size if size == of_other else None for size, of_other in zip(one.shape, other.shape, strict=True))
    return dataclasses.replace(one, dtype=dtype, shape=shape)


def _array(leaf: Leaf, values: list[Any]) -> np.ndarray:
    convert = _strings if leaf.is_string else _numbers
    if not leaf.open_dims:
        return convert(leaf, values)
    samples = [convert(leaf, [value])[0] for value in values]
    if len({sample.shape for sample in samples}) == 1:
        return np.stack(samples)
    array = np.empty(len(samples), object)
    for index, sample in enumerate(samples):
        array[index] = sample
    return array


def _numbers(leaf: Leaf, values: list[Any]) -> np.ndarray:
    try:
        array = np.array(values)
    except (ValueError, OverflowError) as error:
        raise _misfit(leaf, values) from error
    _require_shape(leaf, array, values)
    dtype = leaf.numpy_dtype
    if array.dtype == dtype:
        return array
    if array.dtype.kind in "OSU" or not (array.size == 0 or np.can_cast(array.dtype, dtype, "same_kind")):
        raise _misfit(leaf, values)
    try:
        with np.errstate(over="raise"):
            converted = array.astype(dtype)
    except FloatingPointError as error:
        raise _misfit(leaf, values) from error
    if dtype.kind in "iu" and (converted != array).any():
        raise _misfit(leaf, values)
    return converted


def _strings(leaf: Leaf, values: list[Any]) -> np.ndarray:
    try:
        array = np.array(values, object)
    except ValueError as error:
        raise _misfit(leaf, values) from error
    _require_shape(leaf, array, values)
    flat = array.ravel()
    if not all(map(_is_text, flat)):
        raise _misfit(leaf, values)
    texts = np.empty(len(flat), object)
    texts[:] = [text.encode() if isinstance(text, str) else bytes(text) for text in flat]
    return texts.reshape(array.shape)


def _require_shape(leaf: Leaf, array: np.ndarray, values: list[Any]) -> None:
    fits = array.ndim == 1 + len(leaf.shape)
    if not fits or any(size not in (None, got) for size, got in zip(leaf.shape, array.shape[1:], strict=True)):
        raise _misfit(leaf, values)


def _is_text(value: Any) -> bool:
    return isinstance(value, str | bytes)


def _misfit(leaf: Leaf, values: list[Any]) -> RecordError:
    """Return the error of a leaf; with the value where there is one sample, as when bad records are looked for."""
    got, remedy = "", ""
    if len(values) == 1:
        got = f", got {_short(values[0])}"
        with contextlib.suppress(ValueError):
            if leaf.dtype == "int64" and np.asarray(values[0]).dtype.kind == "f":
                remedy = " The first records held whole numbers: write them like 3.0, or use a kafka_decode hook."
    return RecordError(f"The record does not fit. Expected {leaf}{got}.{remedy}")


def _short(value: Any) -> str:
    # Only the beginning is written out: a value may have millions of numbers.
    text = f"{type(value).__name__} {value.shape} {value.dtype}" if hasattr(value, "shape") else _REPR.repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
