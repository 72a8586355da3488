"""Tables of labels: a CSV file that names each file of a data set, what it shows, and its split."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.common.tables.headed import Row, read_rows, rows_of_split
from experiments_manager.common.tables.problems import Problems

_SPLITS = frozenset({"train", "validation", "test"})


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
    problems = Problems()
    rows = read_rows(path, needed, problems)
    for line, row in rows:
        for column in needed:
            if not row[column]:
                text = "nothing there. Fill it in, or remove the row."
                problems.add(f"{path}, line {line}, column {column!r}", text)
    _find_contradictions(path, rows, file_column, label_column, split_column if split is not None else None, problems)
    rows = rows_of_split(path, rows, split_column, split, problems)
    problems.refuse()
    return LabelTable(
        path=path,
        files=[row[file_column] for _, row in rows],
        labels=[row[label_column] for _, row in rows],
        rows=[line for line, _ in rows],
    )


def _find_contradictions(
    path: Path, rows: Sequence[Row], file_column: str, label_column: str, split_column: str | None, problems: Problems
) -> None:
    """Find files that two rows say different things of: training on what is validated on flatters a model."""
    first: dict[str, Row] = {}
    for line, row in rows:
        file = os.path.normpath(row[file_column])
        other_line, other = first.setdefault(file, (line, row))
        if other[label_column] != row[label_column]:
            said = other[label_column], row[label_column]
        elif split_column and {other[split_column], row[split_column]} <= _SPLITS:
            said = other[split_column], row[split_column]
        else:
            continue
        if said[0] != said[1]:
            text = f"{file} is {said[1]!r} here, and {said[0]!r} in line {other_line}"
            problems.add(f"{path}, line {line}", f"{text}. Expected one of them. Remove a row.")


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
    indices, problems = np.empty(len(table.labels), dtype=np.int32), Problems()
    for position, (label, row) in enumerate(zip(table.labels, table.rows, strict=True)):
        index = known.get(label)
        if index is None:
            index = _whole_number(label)
            index = numbered.get(index) if numbered else index
        if index is None or not 0 <= index < 2**31 or (names is not None and index >= len(names)):
            problems.add(f"{table.path}, line {row}", f"label {label!r} {_expectation(label, names)}")
        else:
            indices[position] = index
    problems.refuse()
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
