"""Tables of labels: a CSV file that names each file of a data set, what it shows, and its split."""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from experiments_manager.common.errors import UserError
from experiments_manager.common.suggestions import did_you_mean

_PROBLEMS_SHOWN = 50
_SPLITS = frozenset({"train", "validation", "test"})


class DataFileError(UserError, ValueError):
    """Data that cannot be read; the message says which file and row, and how to fix it."""


@dataclasses.dataclass(frozen=True)
class LabelTable:
    """The rows of one split."""

    path: Path
    files: list[str]
    labels: list[str]
    rows: list[int]
    """Line of each entry in the file, the header being line 1."""


def read_label_table(
    path: Path | str,
    split: str | None = None,
    file_column: str = "file",
    label_column: str = "label",
    split_column: str = "split",
) -> LabelTable:
    """Read the rows of one split, or all rows, in the order of the file.

    Args:
        path: A CSV file in UTF-8 with a header.
        split: Take only the rows with this word in `split_column`; `None` takes all.
        file_column: Column that names the files.
        label_column: Column with the label, a word or an integer.
        split_column: Column with the split; need not be there when `split` is `None`.

    Raises:
        DataFileError: No such file, column or split, rows that are not whole, or a file that has two labels or is in
            two of the splits `train`, `validation` and `test`.
    """
    path = Path(path)
    needed = [file_column, label_column, *([split_column] if split is not None else [])]
    records = _read_records(path, needed)
    raise_all(_contradictions(path, records, file_column, label_column, split_column if split is not None else None))
    if split is not None:
        known = sorted({record[split_column] for _, record in records})
        records = [(row, record) for row, record in records if record[split_column] == split]
        if not records:
            raise DataFileError(f"{path}: no row has the split {split!r}. Expected one of {', '.join(known)}.")
    return LabelTable(
        path=path,
        files=[record[file_column] for _, record in records],
        labels=[record[label_column] for _, record in records],
        rows=[row for row, _ in records],
    )


def _read_records(path: Path, needed: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Read all records with their line numbers, and make sure that each has a value in every column needed."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True, strict=True)
            reader.fieldnames = columns = [column.strip() for column in reader.fieldnames or []]
            records = [(reader.line_num, _stripped(record)) for record in reader]
    except FileNotFoundError:
        raise DataFileError(f"{path} not found. Expected a CSV file with the columns {', '.join(needed)}.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataFileError(
            f"{path} cannot be read: {error}. Expected a CSV file in UTF-8, with its quotes closed."
        ) from error
    for column in needed:
        if column not in columns:
            raise DataFileError(f"{path} has no column {column!r}. Its columns are {', '.join(columns) or 'none'}.")
        if columns.count(column) > 1:
            raise DataFileError(
                f"{path} has {columns.count(column)} columns {column!r}. Expected one. Rename the others."
            )
    if not records:
        raise DataFileError(f"{path} has no rows below its header.")
    raise_all(
        f"{path}, row {row}: nothing in column {column!r}. Fill it in or remove the row."
        for row, record in records
        for column in needed
        if not record[column]
    )
    return records


def _contradictions(
    path: Path,
    records: Sequence[tuple[int, dict[str, str]]],
    file_column: str,
    label_column: str,
    split_column: str | None,
) -> Iterator[str]:
    """Files that two rows say different things of: training on what is validated on flatters a model."""
    first: dict[str, tuple[int, dict[str, str]]] = {}
    for row, record in records:
        file = os.path.normpath(record[file_column])
        other_row, other = first.setdefault(file, (row, record))
        if other[label_column] != record[label_column]:
            said = other[label_column], record[label_column]
        elif split_column and {other[split_column], record[split_column]} <= _SPLITS:
            said = other[split_column], record[split_column]
        else:
            continue
        if said[0] != said[1]:
            yield (
                f"{path}, row {row}: {file} is {said[1]!r} here, and {said[0]!r} in row {other_row}. "
                "Expected one of them. Remove a row."
            )


def _stripped(record: dict[str, str]) -> dict[str, str]:
    """Cells without the spaces around them: `train ` is no other split than `train`."""
    return {name: text.strip() if isinstance(text, str) else text for name, text in record.items()}


def raise_all(problems: Iterable[str]) -> None:
    """Raise all problems as one error, if there are any.

    Raises:
        DataFileError: There are.
    """
    found = list(problems)
    if found:
        more = [f"… and {len(found) - _PROBLEMS_SHOWN} more."] if len(found) > _PROBLEMS_SHOWN else []
        raise DataFileError("\n".join([*found[:_PROBLEMS_SHOWN], *more]))


def label_indices(table: LabelTable, class_names: Sequence[str] | None = None) -> np.ndarray:
    """Turn labels into integers.

    Args:
        table: Rows with their labels.
        class_names: A label becomes its index in this list. A label that is no name there but a whole number is taken
            as the index itself, unless some of the names are whole numbers. `None` demands whole numbers throughout.

    Returns:
        Integer array `int32` of shape [rows].

    Raises:
        DataFileError: A label is neither one of `class_names` nor an index into it.
    """
    names = list(class_names) if class_names is not None else None
    known = {name: index for index, name in enumerate(names or ())}
    numbered = {number: index for name, index in known.items() if (number := _whole_number(name)) is not None}
    indices, problems = np.empty(len(table.labels), dtype=np.int32), []
    for position, (label, row) in enumerate(zip(table.labels, table.rows, strict=True)):
        index = known.get(label)
        if index is None:
            index = _whole_number(label)
            index = numbered.get(index) if numbered else index
        if index is None or not 0 <= index < 2**31 or (names is not None and index >= len(names)):
            problems.append(f"{table.path}, row {row}: label {label!r} {_expectation(label, names)}")
        else:
            indices[position] = index
    raise_all(problems)
    return indices


def _whole_number(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _expectation(label: str, names: list[str] | None) -> str:
    if names is None:
        return "is no whole number from 0. Give class_names to turn words into numbers."
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return f"is not in class_names. Expected one of {shown}. {did_you_mean(label, names)}".rstrip()
