"""`metrics.csv`: one row an epoch, for spreadsheets, pandas and comparisons of runs.

The file holds nothing that depends on the clock, so that a run that was killed and resumed writes the same bytes as one
that was not.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from experiments_manager.events import EpochReport, RunEnd, RunStart, Watcher
from experiments_manager.monitoring import growing_csv
from experiments_manager.monitoring.growing_csv import GrowingCsv

logger = logging.getLogger(__name__)

KEY = "epoch"


class MetricsCsv(Watcher):
    """Writes the columns epoch, step and learning_rate, then every logged value at full precision; see `GrowingCsv`."""

    in_background = True

    def __init__(self, path: Path | str) -> None:
        """Remember where to write; nothing is touched before the run starts."""
        self.table = GrowingCsv(path, KEY)

    def on_start(self, start: RunStart) -> None:
        """Drop the rows of epochs that will be trained again, and a last line that was cut off."""
        kept = self.table.begin(start.first_epoch)
        missing = 0 if kept is None else start.first_epoch - 1 - len(kept)
        if missing > 0:
            logger.warning("%s lacks the rows of %d epochs: it was damaged or removed.", self.table.path, missing)

    def on_epoch(self, report: EpochReport) -> None:
        """Append one row; where training went back to an earlier epoch, the rows from that one on are dropped."""
        values = {"learning_rate": report.learning_rate, **report.logs}
        self.table.append([metrics_row(report.epoch, report.global_step, values)])

    def on_end(self, end: RunEnd) -> None:
        """Write what is left and close the file."""
        self.table.close()


def metrics_row(epoch: int, step: int, values: Mapping[str, float]) -> dict[str, str]:
    """Return a row of a `metrics.csv`."""
    row = {KEY: str(epoch), "step": str(step)}
    row.update((name, repr(float(value))) for name, value in values.items())
    return row


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Read the columns and all whole rows of a `metrics.csv`; see `growing_csv.read_rows`."""
    return growing_csv.read_rows(path, KEY)
