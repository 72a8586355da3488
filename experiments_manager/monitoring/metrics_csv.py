"""`metrics.csv`: one row an epoch, for spreadsheets, pandas and comparisons of runs.

The file holds nothing that depends on the clock, so that a run that was killed and resumed writes the same bytes as one
that was not. A row costs some microseconds: it is appended to a file that stays open.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from experiments_manager.common.atomic import write_text
from experiments_manager.events import EpochReport, RunEnd, RunStart, Watcher

logger = logging.getLogger(__name__)

Row = Mapping[str, str]


class MetricsCsv(Watcher):
    """Writes the columns epoch, step and learning_rate, then every logged value at full precision.

    The first row sets the order of the columns. A value that comes up later gets a new last column, empty in the rows
    above. Where the disk is full, training goes on: rows are kept and written as soon as there is room.
    """

    def __init__(self, path: Path | str) -> None:
        """Remember where to write; nothing is touched before the run starts."""
        self.path = Path(path)
        self._columns: list[str] = []
        self._unwritten: list[Row] = []
        self._last_epoch = 0
        self._stream: io.FileIO | None = None
        self._size = 0
        self._has_warned = False

    def on_start(self, start: RunStart) -> None:
        """Drop the rows of epochs that will be trained again, and a last line that was cut off."""
        try:
            missing = start.first_epoch - 1 - len(self._rewrite(first_new_epoch=start.first_epoch))
            if missing > 0:
                logger.warning("%s lacks the rows of %d epochs: it was damaged or removed.", self.path, missing)
            self._last_epoch = start.first_epoch - 1
        except OSError as error:
            self._warn(error)

    def on_epoch(self, report: EpochReport) -> None:
        """Append one row, and those that could not be written before.

        Where training went back to an earlier epoch, the rows from that one on are dropped first.
        """
        values = {"learning_rate": report.learning_rate, **report.logs}
        row = {"epoch": str(report.epoch), "step": str(report.global_step)}
        row.update((name, repr(float(value))) for name, value in values.items())
        went_back, self._last_epoch = report.epoch <= self._last_epoch, report.epoch
        if went_back:
            self._unwritten = [older for older in self._unwritten if int(older["epoch"]) < report.epoch]
            self._close()  # so that the file is written anew
        self._unwritten.append(row)
        self._write()

    def on_end(self, end: RunEnd) -> None:
        """Write what is left and close the file."""
        if self._unwritten:
            self._write()
        self._close()

    def _write(self) -> None:
        try:
            if self._stream is None or not all(self._columns_hold(row) for row in self._unwritten):
                self._rewrite(first_new_epoch=int(self._unwritten[0]["epoch"]))
            else:
                self._append("".join(self._line(row) for row in self._unwritten).encode())
        except OSError as error:
            self._warn(error)
        else:
            self._unwritten.clear()
            self._has_warned = False

    def _columns_hold(self, row: Row) -> bool:
        return all(name in self._columns for name in row)

    def _line(self, row: Row) -> str:
        return ",".join([row.get(name, "") for name in self._columns]) + "\n"

    def _append(self, content: bytes) -> None:
        """Append all of it, or leave the file as it was."""
        written = 0
        try:
            while written < len(content):
                written += self._stream.write(content[written:])
        except OSError:
            self._stream.truncate(self._size)
            raise
        self._size += len(content)

    def _rewrite(self, first_new_epoch: int) -> list[Row]:
        """Put the rows before `first_new_epoch` and the unwritten ones under a header that names all their columns.

        Returns:
            All these rows.
        """
        columns, rows = read_rows(self.path)
        kept = [row for row in rows if int(row["epoch"]) < first_new_epoch]
        rows = [*kept, *self._unwritten]
        columns = list(dict.fromkeys([*(columns if kept else ()), *(name for row in self._unwritten for name in row)]))
        self._close()
        if not rows:
            self.path.unlink(missing_ok=True)
            return rows
        content = _table(columns, rows)
        if not self.path.exists() or self.path.read_bytes() != content.encode():
            write_text(self.path, content)
        self._columns = columns
        self._size = len(content.encode())
        self._stream = self.path.open("ab", buffering=0)
        return rows

    def _close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _warn(self, error: OSError) -> None:
        if not self._has_warned:
            logger.warning("%s cannot be written: %s. Training goes on; the rows are kept.", self.path, error.strerror)
            self._has_warned = True


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Read the columns and all whole rows, cells verbatim; a row that was cut off ends the table.

    Returns:
        Column names and rows; both empty where there is no such file or its first column is not `epoch`.
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
    if columns[:1] != ["epoch"]:
        return [], []
    rows = []
    for cells in records:
        if len(cells) != len(columns) or not cells[0].isdecimal():
            break
        rows.append({name: cell for name, cell in zip(columns, cells, strict=True) if cell})
    return columns, rows


def _table(columns: list[str], rows: Iterable[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
