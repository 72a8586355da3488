"""Columns and rows that are no numbers, named before NumPy or TensorFlow stumble over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from experiments_manager.settings.problems import shown
from experiments_manager.training.errors import DataError

_ROWS = 100_000
"""Rows that are looked at, at most, for the first one that is not like the others."""


def refuse_odd_columns(data: Any, split: str) -> None:
    """Refuse what cannot be flattened or is surely no array: functions, generators, keys that cannot be sorted."""
    parts = data if isinstance(data, tuple) else (data,)
    for label, part in zip(("x", "y", "sample_weight"), parts, strict=False):
        _refuse_odd(part, label, split)
    if all(part is None for part in parts) or parts[0] is None:
        raise DataError(
            f"dataset: the {split} split has no x. Expected `x`, `(x, y)` or `(x, y, sample_weight)` of arrays, got "
            "None in its place. Return x; None alone says that there is no such split."
        )


def _refuse_odd(part: Any, name: str, split: str) -> None:
    if isinstance(part, Mapping):
        if any(not isinstance(key, str) for key in part):
            raise DataError(
                f"dataset: {name} of the {split} split is a dictionary by {', '.join(map(shown, part))}. Expected the "
                "names of inputs or outputs, as texts. Rename the keys."
            )
        if not part:
            raise DataError(f"dataset: {name} of the {split} split is an empty dictionary. Expected arrays. Fill it.")
        for key, value in part.items():
            _refuse_odd(value, f"{name}[{key}]", split)
    elif isinstance(part, (list, tuple)):
        _refuse_odd_list(part, name, split)
    elif hasattr(part, "__next__") or (callable(part) and not hasattr(part, "shape")):
        kind = type(part).__name__
        raise DataError(
            f"dataset: {name} of the {split} split is a {kind}. Expected NumPy arrays, tensors, a `tf.data.Dataset` or "
            f"a `keras.utils.PyDataset`, got a {kind}. Make arrays of it, or wrap it by "
            "`tf.data.Dataset.from_generator(…).batch(…)`."
        )
    elif isinstance(part, tf.data.Dataset):
        raise DataError(
            f"dataset: {name} of the {split} split is a `tf.data.Dataset` within a tuple. Expected one dataset of "
            "`(x, y)`, or arrays. Join them by `tf.data.Dataset.zip((x, y))`."
        )


def _refuse_odd_list(part: Any, name: str, split: str) -> None:
    """Refuse lists of numbers, each of which would be an input of its own, and of rows of different lengths."""
    rows = [item for item in part if isinstance(item, (list, tuple))]
    plain = [item for item in part if isinstance(item, (int, float, str, bytes, np.generic))]
    if len(part) and len(plain) == len(part):
        raise DataError(
            f"dataset: {name} of the {split} split is a list of {len(part)} values, {shown(part)}. Expected an array, "
            "for each entry of a list is taken for an input of its own. Write `np.array(…)` around it."
        )
    if rows and len(rows) == len(part):
        lengths = [len(row) for row in rows]
        if len(set(lengths)) > 1:
            odd = next(number for number, length in enumerate(lengths) if length != lengths[0])
            raise DataError(
                f"dataset: {name} of the {split} split has rows of different lengths: row 0 has {lengths[0]}, row "
                f"{odd} has {lengths[odd]}. Expected the same in each. Pad them, e.g. by `keras.utils.pad_sequences`."
            )
    for number, item in enumerate(part[:100]):
        _refuse_odd(item, f"{name}[{number}]", split)


def refuse_columns_of_text(frame: Any, name: str, split: str) -> None:
    """Refuse a table of pandas with columns of numbers and others of text, and dates; name the column and a value."""
    columns = getattr(frame, "columns", None)
    if columns is None:
        return
    kinds = [str(dtype) for dtype in frame.dtypes]
    odd = [place for place, dtype in enumerate(frame.dtypes) if getattr(dtype, "kind", "O") not in "biuf"]
    if not odd or (len(odd) == len(kinds) and all(map(_is_text, (frame.iloc[:, place] for place in odd)))):
        return
    said = []
    for place in odd:
        found = _first_odd(frame.iloc[:, place].tolist())
        if found is not None:
            said.append(f"column {columns[place]!r} ({kinds[place]}, e.g. {shown(found[1])} in row {found[0]})")
    if not said:
        return
    raise DataError(
        f"dataset: {name} of the {split} split has columns that are no numbers: {', '.join(said)}. Expected numbers. "
        "Drop them, or make numbers of them, e.g. by `pd.get_dummies` or `.astype('category').cat.codes`."
    )


def _is_text(series: Any) -> bool:
    return all(isinstance(value, str) for value in series.tolist()[:_ROWS])


def of_numbers_or_text(array: np.ndarray, name: str, split: str) -> np.ndarray:
    """Return an array as one of numbers, or of text alone; refuse arrays of objects and of dates.

    Raises:
        DataError: It names the first value that is neither, with its row and column.
    """
    if array.dtype.kind in "Mm":
        raise DataError(
            f"dataset: {name} of the {split} split holds dates, {array.dtype}. Expected numbers, got e.g. "
            f"{shown(str(array.flat[0]) if array.size else '')}. Make seconds or days of them."
        )
    if array.dtype.names:
        raise DataError(
            f"dataset: {name} of the {split} split is an array of records with the fields "
            f"{', '.join(array.dtype.names)}. Expected one array of numbers. Take its fields, or "
            "`np.lib.recfunctions.structured_to_unstructured`."
        )
    if array.dtype.kind != "O" or array.ndim == 0:
        return array
    values = array.ravel()[:_ROWS].tolist()
    if values and all(isinstance(value, (str, bytes)) for value in values):
        return array
    lengths = {len(value) for value in values if hasattr(value, "__len__") and not isinstance(value, (str, bytes))}
    if values and all(isinstance(value, (int, float, np.number, np.bool_)) for value in values):
        return array.astype(np.float64)
    if lengths:
        shapes = [np.shape(value) if not isinstance(value, (str, bytes)) else () for value in values]
        odd = next((number for number, shape in enumerate(shapes) if shape != shapes[0]), None)
        if odd is None:
            return np.stack([np.asarray(value) for value in values]).reshape((*array.shape, *shapes[0]))
        raise DataError(
            f"dataset: {name} of the {split} split has rows of different shapes: row 0 {shapes[0]}, row {odd} "
            f"{shapes[odd]}. Expected the same in each. Pad them, e.g. by `keras.utils.pad_sequences`."
        )
    place = _first_odd(values)
    if place is None:
        return array
    index, value = place
    row, column = divmod(index, array.shape[1]) if array.ndim == 2 and array.shape[1] else (index, None)
    where = f"row {row}" if column is None else f"row {row}, column {column}"
    what = "is no number" if not isinstance(value, str) else "is text"
    raise DataError(
        f"dataset: {name} of the {split} split is an array of objects, and {where} {what}: {shown(value)}. Expected "
        "numbers alone. Drop that column or make numbers of it, then convert by `.astype('float32')`."
    )


def _first_odd(values: list[Any]) -> tuple[int, Any] | None:
    """Return place and value of the first that is no number."""
    for number, value in enumerate(values[:_ROWS]):
        if not isinstance(value, (int, float, np.number, np.bool_)):
            return number, value
    return None
