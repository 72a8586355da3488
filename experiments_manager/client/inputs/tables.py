"""Rows of a table as samples: which columns belong to which input, and what is wrong with a header.

An input of one number has a column of its name; one of several has `name_0`, `name_1`, … (or all of them counted from
1), in any order. Where a model takes a single input, the header may have other names, or be missing: then the cells
are the input's numbers in their order.
"""

from __future__ import annotations

import collections
import csv
import itertools
import logging
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from experiments_manager.client.inputs.samples import Sample, SourceError, as_request, only_input
from experiments_manager.client.model_info import ModelInfo, TensorInfo, did_you_mean, listed

logger = logging.getLogger(__name__)
_LISTED = 6  # names that a message lists before it leaves the middle out


def read_table(
    lines: Iterable[str], info: ModelInfo, where: str, *, delimiter: str = ",", told: set[str] | None = None
) -> Iterator[Sample]:
    """Read the rows of a table as they are asked for.

    Args:
        lines: The table's lines.
        info: The model that the rows are for.
        where: The file, for messages.
        delimiter: What stands between cells.
        told: Columns without an input that the user knows of; further ones are added as they are told.

    Raises:
        SourceError: The header does not fit the model, or a row does not. While the rows are read.
    """
    rows = csv.reader(lines, delimiter=delimiter)
    first = next((row for row in rows if row), None)
    if first is None:
        raise SourceError(f"{where} is empty. Expected a line for each sample.")
    header = [cell.strip() for cell in first]
    columns = None if all(map(_is_number, header)) else _columns_by_header(header, info, where)
    if columns is not None:
        _tell_unused(header, columns, where, set() if told is None else told)
    has_header = columns is not None
    if columns is None:
        name, tensor = only_input(info, f"{where}: a table without a header that names the inputs")
        has_header = not all(map(_is_number, header)) and tensor.dtype != object
        columns = {name: list(range(len(first)))}
    needed = max(max(indices) for indices in columns.values()) + 1
    number = -1
    for number, row in enumerate(row for row in itertools.chain([] if has_header else [first], rows) if row):
        place = f"{where}, row {number + 1}"
        _check_width(row, needed, len(first), place)
        yield Sample(
            str(number),
            {name: _values(row, indices, name, info.inputs[name], place) for name, indices in columns.items()},
        )
    if number < 0:
        raise SourceError(
            f"{where} has a header ({', '.join(first)[:100]}) and nothing else. Expected a line for each sample."
        )


def _columns_by_header(header: list[str], info: ModelInfo, where: str) -> dict[str, list[int]] | None:
    """Return the columns of each input by their names; `None` where no cell names an input, and there is but one."""
    found = {name: _cells_of(name, header, info) for name in info.inputs}
    stems = [re.sub(r"_[0-9]+$", "", cell) for cell in header]
    if not any(found.values()) and len(info.required) == 1:
        only = next(iter(info.required))
        numbered = [stem for stem, cell in zip(stems, header, strict=True) if stem != cell]
        if only.lower() not in map(str.lower, numbered):  # else `X_1`, `X_0` would be taken in the wrong order
            return None
    if missing := [name for name in info.required if not found[name]]:
        hint = next(
            filter(None, (did_you_mean(stem, missing) for stem in dict.fromkeys(stems) if stem not in found)), ""
        )
        raise SourceError(
            f"{where}: the header has {_short(header)}; no column is named after the input {missing[0]}. Expected "
            f"{', '.join(_expected(name, tensor) for name, tensor in info.required.items())} for "
            f"{listed(info.required)}.{hint}"
        )
    columns = {}
    for name, cells in found.items():
        if cells:
            if wrong := _wrong_with(name, cells, header, info.inputs[name]):
                raise SourceError(
                    f"{where}: the header has {wrong}. Expected {_expected(name, info.inputs[name])} for the input "
                    f"{name} ({info.inputs[name]})."
                )
            columns[name] = [index for _, index in sorted(cells)]
    return columns


def _cells_of(name: str, header: list[str], info: ModelInfo) -> list[tuple[int, int]]:
    """Return number and index of each column of an input; -1 where the column has the input's very name."""
    cells = []
    for index, cell in enumerate(header):
        if cell == name:
            cells.append((-1, index))
        elif cell not in info.inputs and (match := re.fullmatch(rf"{re.escape(name)}_([0-9]+)", cell)):
            cells.append((int(match[1]), index))
    return cells


def _wrong_with(name: str, cells: list[tuple[int, int]], header: list[str], tensor: TensorInfo) -> str | None:
    """Return what keeps an input's columns from being its numbers, each once."""
    ordered = sorted(cells)
    numbers = [number for number, _ in ordered]
    names = [header[index] for _, index in ordered]
    (number, times), *_ = collections.Counter(numbers).most_common(1)
    if times > 1:
        return f"{names[numbers.index(number)]} {'twice' if times == 2 else f'{times} times'}"
    size = _size(tensor)
    if numbers == [-1]:
        return None if size in (1, None) else f"{name}, which is one column for {size} numbers"
    if numbers[0] == -1:
        return f"both {name} and {names[1]}"
    if numbers == list(range(1, len(numbers) + 1)) and size in (len(numbers), None):
        return None  # they are counted from 1
    wanted = range(numbers[-1] + 1 if size is None else size)
    there = set(numbers)
    missing = list(itertools.islice((number for number in wanted if number not in there), _LISTED + 1))
    if missing:
        absent = _short([f"{name}_{number}" for number in missing[:_LISTED]])
        more = ", … are" if len(missing) > _LISTED else " is" if len(missing) == 1 else " are"
        return f"{_short(names)}; {absent}{more} missing"
    if len(numbers) > len(wanted):
        return f"{_short(names)}; the input takes {size} numbers"
    return None


def _size(tensor: TensorInfo) -> int | None:
    """Return how many numbers a row has for an input; `None` where any number will do."""
    sizes = () if tensor.shape is None else tensor.shape[1:] if len(tensor.shape) > 1 else tensor.shape
    if tensor.shape is None or None in sizes:
        return None
    return math.prod(sizes)


def _expected(name: str, tensor: TensorInfo) -> str:
    size = _size(tensor)
    if size == 1 or (size is None and tensor.shape is not None and len(tensor.shape) == 1):
        return name
    if size is None:
        return f"{name}_0, {name}_1, …"
    if size > _LISTED:
        return f"{name}_0, {name}_1, …, {name}_{size - 1}"
    return ", ".join(f"{name}_{number}" for number in range(size))


def _short(names: Sequence[str]) -> str:
    if len(names) > _LISTED:
        names = [*names[: _LISTED - 2], "…", names[-1]]
    return ", ".join(name[:40] or "''" for name in names)


def _tell_unused(header: list[str], columns: dict[str, list[int]], where: str, told: set[str]) -> None:
    """Say once which columns nobody uses; labels beside inputs are common, so they are no error."""
    used = {index for indices in columns.values() for index in indices}
    unused = [cell or f"number {index + 1}" for index, cell in enumerate(header) if index not in used]
    if not set(unused) <= told:
        logger.warning(
            "%s: the column%s %s belong%s to no input and %s left out.",
            where,
            *(("", _short(unused), "s", "is") if len(unused) == 1 else ("s", _short(unused), "", "are")),
        )
        told.update(unused)


def _check_width(row: list[str], needed: int, width: int, place: str) -> None:
    if len(row) < needed or any(cell.strip() for cell in row[width:]):
        cells = "is 1 cell" if len(row) == 1 else f"are {len(row)} cells"
        raise SourceError(f"{place}: there {cells}. Expected {width}, as in the first line.")


def _values(row: list[str], indices: list[int], name: str, tensor: TensorInfo, place: str) -> np.ndarray:
    try:
        values = np.array([_value(row[index], tensor.dtype) for index in indices], tensor.dtype)
    except (ValueError, OverflowError) as error:
        raise SourceError(f"{place}: {error}. Expected values for the input {name} ({tensor}).") from error
    return as_request(name, _shaped(values, tensor), tensor, place)


def _value(cell: str, dtype: np.dtype) -> Any:
    if dtype.kind == "O":
        return cell
    if dtype.kind not in "iu":
        return float(cell)
    try:
        return int(cell)
    except ValueError:
        value = float(cell)
    if not value.is_integer():
        raise ValueError(f"{cell} is no whole number")
    return int(value)


def _shaped(values: np.ndarray, tensor: TensorInfo) -> np.ndarray:
    """Return a row of cells the shape of one sample, where their number fits."""
    if tensor.shape is None or len(tensor.shape) == 2:
        return values
    sample = tensor.shape[1:]
    if None not in sample and math.prod(sample) == values.size:
        return values.reshape(sample)
    return values


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
