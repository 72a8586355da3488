"""A table that grows while a run trains, and goes on after a kill as if there had been none.

Its first column counts: epochs, or rounds. A row costs some microseconds: it is appended to a file that stays open, or
is opened for it where there are hundreds of such files.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from experiments_manager.common.atomic import write_text

logger = logging.getLogger(__name__)

Row = Mapping[str, str]
"""Cells by column."""


class GrowingCsv:
    """A table of rows whose first column never falls.

    The first row sets the order of the columns. A value that comes up later gets a new last column, empty in the rows
    above. Where the disk is full, training goes on: rows are kept and written as soon as there is room.

    Args:
        path: The file; nothing is touched before `begin`.
        key: Name of the first column, whose cells are integers from 1.
        stays_open: Whether the file is kept open; not where there are more files than a process may open.
        sync: Whether a file that is written anew is brought to the disk at once.
        warn: Called once when the file cannot be written, with its path and the reason; logs a warning by default.
    """

    def __init__(
        self,
        path: Path | str,
        key: str,
        *,
        stays_open: bool = True,
        sync: bool = True,
        warn: Callable[[Path, OSError], None] | None = None,
    ) -> None:
        self.path, self.key = Path(path), key
        self._tell = warn or _warn
        self._stays_open, self._sync = stays_open, sync
        self._columns: list[str] = []
        self._unwritten: list[Row] = []
        self._last = 0
        self._stream: io.FileIO | None = None
        self._size = 0
        self._is_known = False
        """Whether columns and size are those of the file."""
        self._has_warned = False

    def begin(self, first: int) -> list[Row] | None:
        """Drop the rows from number `first` on, and lines that are no rows, such as a last one that was cut off.

        A file that is no such table at all is kept beside the new one, under a name that ends in `.damaged`.

        Returns:
            The rows that stay; `None` where the disk refuses.
        """
        self._last = first - 1
        self._unwritten = []
        try:
            self._set_aside()
            return self._rewrite(first)
        except OSError as error:
            self._warn(error)
            return None

    def _set_aside(self) -> None:
        """Keep a file that somebody else wrote, or a spreadsheet saved with other separators."""
        columns, _ = read_rows(self.path, self.key)
        if columns or not self.path.is_file() or not self.path.read_bytes().rpartition(b"\n")[0].strip():
            return
        aside = self.path.with_name(f"{self.path.name}.damaged")
        self.path.replace(aside)
        logger.warning("%s is no table that begins with the column %s. It is now %s.", self.path, self.key, aside)

    def append(self, rows: Sequence[Row]) -> None:
        """Append rows of one number, and those that could not be written before.

        Where the number is not more than the last one, the rows from it on are dropped first.
        """
        if not rows:
            return
        number = int(rows[0][self.key])
        went_back, self._last = number <= self._last, number
        if went_back:
            self._unwritten = [older for older in self._unwritten if int(older[self.key]) < number]
            self.close()
            self._is_known = False  # so that the file is written anew
        self._unwritten += rows
        self._write()

    def close(self) -> None:
        """Write what is left and close the file."""
        if self._unwritten:
            self._write()
        self._close()

    def _write(self) -> None:
        try:
            if not self._is_known or not all(name in self._columns for row in self._unwritten for name in row):
                self._rewrite(int(self._unwritten[0][self.key]))
            else:
                self._append(_lines(self._columns, self._unwritten).encode())
        except OSError as error:
            self._warn(error)
        else:
            self._unwritten.clear()
            self._has_warned = False

    def _append(self, content: bytes) -> None:
        """Append all of it, or leave the file as it was."""
        if self._stream is None:
            self._stream = self.path.open("ab", buffering=0)
        written = 0
        try:
            while written < len(content):
                written += self._stream.write(content[written:])
        except OSError:
            self._stream.truncate(self._size)
            raise
        finally:
            if not self._stays_open:
                self._close()
        self._size += len(content)

    def _rewrite(self, first_new: int) -> list[Row]:
        """Put the rows before `first_new` and the unwritten ones under a header that names all their columns.

        Returns:
            All these rows.
        """
        columns, rows = read_rows(self.path, self.key)
        kept = [row for row in rows if int(row[self.key]) < first_new]
        rows = [*kept, *self._unwritten]
        columns = list(dict.fromkeys([*(columns if kept else ()), *(name for row in self._unwritten for name in row)]))
        self._close()
        self._is_known = False
        if not rows:
            self.path.unlink(missing_ok=True)
            return rows
        content = _lines(columns, rows, header=True)
        if not self.path.exists() or self.path.read_bytes() != content.encode():
            write_text(self.path, content, sync=self._sync)
        if self._stays_open:
            self._stream = self.path.open("ab", buffering=0)
        self._columns, self._size, self._is_known = columns, len(content.encode()), True
        return rows

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _warn(self, error: OSError) -> None:
        if not self._has_warned:
            self._tell(self.path, error)
            self._has_warned = True


def _warn(path: Path, error: OSError) -> None:
    logger.warning("%s cannot be written: %s. Training goes on; the rows are kept.", path, error.strerror)


def read_rows(path: Path, key: str) -> tuple[list[str], list[dict[str, str]]]:
    """Read the columns and all whole rows, cells verbatim; lines that are no rows are left out.

    Args:
        path: The file.
        key: Name of the first column, whose cells are integers.

    Returns:
        Column names, and rows without their empty cells; both empty where there is no such table.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return [], []
    whole_lines = text[: text.rfind("\n") + 1]
    try:
        columns, *records = [*csv.reader(io.StringIO(whole_lines))] or [[]]
    except csv.Error:  # bytes that no row holds
        return [], []
    if columns[:1] != [key]:
        return [], []
    rows = []
    for cells in records:
        if len(cells) != len(columns) or not cells[0].isdecimal():
            continue
        rows.append({name: cell for name, cell in zip(columns, cells, strict=True) if cell})
    return columns, rows


def _lines(columns: list[str], rows: Iterable[Row], *, header: bool = False) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
