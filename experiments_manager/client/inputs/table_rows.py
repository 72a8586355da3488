"""Rows of a table as samples: which columns belong to which input, and what is wrong with a header.

An input of one number has a column of its name; one of several has `name_0`, `name_1`, … (or all of them counted from
1), in any order. Where a model takes a single input, the header may have other names, or be missing: then the cells
are the input's numbers in their order.
"""

from __future__ import annotations

import csv
import itertools
import logging
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from experiments_manager.client.inputs.request_sample import Sample, SourceError, as_request, only_input
from experiments_manager.client.model_info import ModelInfo, TensorInfo
from experiments_manager.common.suggestions import did_you_mean

logger = logging.getLogger(__name__)
_LISTED = 6  # names that a message lists before it leaves the middle out


def read_table(
    lines: Iterable[str], info: ModelInfo, where: str, *, delimiter: str = ",", reported: set[str] | None = None
) -> Iterator[Sample]:
    """Read the rows of a table as they are asked for.

    Args:
        lines: The table's lines.
        info: The model that the rows are for.
        where: The file, for messages.
        delimiter: What stands between cells.
        reported: Columns without an input that were logged before; further ones are added.

    Raises:
        SourceError: The header does not fit the model, or a row does not. While the rows are read.
    """
    rows = _rows(lines, delimiter, where)
    first = next((row for row in rows if row), None)
    if first is None:
        raise SourceError(f"{where} is empty. Expected a line for each sample.")
    header = [cell.strip() for cell in first]
    columns = None if all(map(_is_number, header)) else _columns_by_header(header, info, where)
    if columns is not None:
        _report_unused(header, columns, where, set() if reported is None else reported)
    has_header = columns is not None
    if columns is None:
        name, tensor = only_input(info, f"{where}: a table without a header that names the inputs")
        numbers = sum(map(_is_number, header))
        has_header = numbers < len(header) and tensor.dtype != object
        if has_header and numbers:
            raise SourceError(
                f"{where}: the first line has numbers and other cells: {_short(header)}. Expected a header without "
                f"numbers, or a sample of numbers alone for the input {name} ({tensor})."
            )
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


def _rows(lines: Iterable[str], delimiter: str, where: str) -> Iterator[list[str]]:
    rows = csv.reader(lines, delimiter=delimiter)
    try:
        yield from rows
    except csv.Error as error:
        raise SourceError(
            f"{where}, line {rows.line_num}: {error}. Expected lines that end in a line feed, quotes that are "
            f"closed, and cells of at most {csv.field_size_limit():,} characters; longer texts can be sent as JSON."
        ) from error


def _columns_by_header(header: list[str], info: ModelInfo, where: str) -> dict[str, list[int]] | None:
    """Return the columns of each input by their names; `None` where no cell names an input, and there is but one."""
    cells = {name: _cells_of(name, header, info) for name in info.inputs}
    stems = [match[1] for cell in header if (match := re.fullmatch(r"(.+)_[0-9]+", cell))]
    misspelled = any(name.lower() in map(str.lower, stems) for name in info.required)  # `X_1`, `X_0` has an order
    if not any(cells.values()) and len(info.required) == 1 and not misspelled:
        return None
    columns = {name: _in_order(cells[name], info.inputs[name]) for name in info.inputs if cells[name]}
    if wrong := [name for name in info.inputs if not columns.get(name, name not in info.required)]:
        name, tensor = wrong[0], info.inputs[wrong[0]]
        hint = (
            "" if cells[name] else next(filter(None, (did_you_mean(stem, [name], shown="'{}'") for stem in stems)), "")
        )
        raise SourceError(
            f"{where}: the header does not fit the input {name} ({tensor}). Expected {_expected(name, tensor)}, each "
            f"once; got {_short([header[index] for _, index in cells[name]] or header)}. {hint}".rstrip()
        )
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


def _in_order(cells: list[tuple[int, int]], tensor: TensorInfo) -> list[int]:
    """Return the indices of an input's columns in the order of their numbers; none where these are not its numbers."""
    numbers, size, count = sorted(number for number, _ in cells), _size(tensor), len(cells)
    alone = numbers == [-1] and size in (1, None)
    counted = numbers in ([*range(count)], [*range(1, count + 1)]) and size in (count, None)
    return [index for _, index in sorted(cells)] if alone or counted else []


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


def _report_unused(header: list[str], columns: dict[str, list[int]], where: str, reported: set[str]) -> None:
    """Log once which columns belong to no input; labels beside inputs are common, so they are no error."""
    used = {index for indices in columns.values() for index in indices}
    unused = [cell or f"number {index + 1}" for index, cell in enumerate(header) if index not in used]
    if not set(unused) <= reported:
        logger.warning("%s: columns that belong to no input are left out: %s.", where, _short(unused))
        reported.update(unused)


def _check_width(row: list[str], needed: int, width: int, place: str) -> None:
    if len(row) < needed or any(cell.strip() for cell in row[width:]):
        raise SourceError(f"{place}: invalid number of cells. Expected {width}, as in the first line; got {len(row)}.")


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
        raise ValueError(f"{cell} is not a whole number")
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
