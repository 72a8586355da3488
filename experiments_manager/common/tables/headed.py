"""CSV files whose first line names their columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.common.tables.problems import Problems

Row = tuple[int, dict[str, str]]
"""The line in the file, the header being line 1, and the cells by column."""


def read_rows(path: Path, needed: Sequence[str], problems: Problems) -> list[Row]:
    """Read the rows of a table, without the spaces around names and cells: `train ` is no other split than `train`.

    Args:
        path: A CSV file in UTF-8. Lines without anything in them are left out.
        needed: Columns that must be there, once each.
        problems: Takes what is wrong with the file as a whole, and with lines of other lengths than the header.

    Returns:
        The rows that are whole; none where the file or its header is not right.
    """
    text = _text(path, needed, problems)
    if text is None:
        return []
    lines = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    try:
        header = [column.strip() for column in next(lines, [])]
        if not _fits(path, header, needed, problems):
            return []
        cells = [(lines.line_num, [cell.strip() for cell in line]) for line in lines if any(map(str.strip, line))]
    except csv.Error as error:
        text = f"it cannot be read: {error}. Expected comma-separated values, with their quotes closed."
        problems.add(f"{path}, line {lines.line_num}", text)
        return []
    if not cells:
        problems.add(path, "it has no rows below its header.")
    rows = []
    for number, line in cells:
        if len(line) < len(header) or any(line[len(header) :]):
            text = f"it has {len(line)} fields. Expected {len(header)}, as the header has. Put values with commas into"
            problems.add(f"{path}, line {number}", f"{text} quotes.")
        else:
            rows.append((number, dict(zip(header, line, strict=False))))
    return rows


def rows_of_split(path: Path, rows: Sequence[Row], column: str, split: str | None, problems: Problems) -> list[Row]:
    """Return the rows of one split; all where it is `None`. That there are none of it is a problem."""
    if split is None:
        return list(rows)
    found = [(line, row) for line, row in rows if row[column] == split]
    if rows and not found:
        known = sorted({row[column] for _, row in rows})
        problems.add(path, f"no row has the split {split!r}. Expected one of {', '.join(known)}.")
    return found


def _text(path: Path, needed: Sequence[str], problems: Problems) -> str | None:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        problems.add(path, f"not found. Expected a CSV file with the columns {', '.join(needed)}.")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problems.add(f"{path}, line {line}", "it is not UTF-8. Expected a CSV file in UTF-8. Save it as that.")
    except OSError as error:
        problems.add(path, f"it cannot be read: {error.strerror}. Expected a CSV file.")
    return None


def _fits(path: Path, header: list[str], needed: Sequence[str], problems: Problems) -> bool:
    missing = [name for name in needed if name not in header]
    if missing:
        hints = [hint for name in missing if (hint := did_you_mean(name, header))]
        if header and ";" in header[0]:
            hints = ["They are parted by semicolons; commas are needed."]
        shown = f"Its columns are {', '.join(header) or 'none'}."
        problems.add(path, " ".join([f"it has no column {', '.join(map(repr, missing))}.", shown, *hints]))
    double = [repr(name) for name in needed if header.count(name) > 1]
    if double:
        problems.add(path, f"it has {', '.join(double)} twice in its header. Expected each column once. Rename one.")
    return not missing and not double
