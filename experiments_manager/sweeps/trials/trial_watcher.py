"""What the driver is told of a trial while it trains, and the values of its objectives."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments_manager.common.errors import UserError
from experiments_manager.events import EpochReport, Progress, Rollback, RunStart, Watcher
from experiments_manager.monitoring.metrics_csv import read_rows
from experiments_manager.runs import Run
from experiments_manager.settings.monitor_mode import resolved_mode

_SECONDS_BETWEEN_SIGNS = 1.0
Values = tuple[float, ...]
Curve = list[float | None]


class ObjectiveError(UserError):
    """The objective is no column of `metrics.csv`: a fault of the sweep file, and not of one trial."""


class TrialWatcher(Watcher):
    """Tells the driver of epochs, asks it whether to go on, and gives signs of life in between.

    Args:
        columns: The objectives, by their names among an epoch's values.
        monitor: The watched value of the run, by which an epoch is its best.
        monitor_mode: `min`, `max` or `auto`.
        asks_at: At which epochs the driver is asked.
        asked: The last epoch at which it was asked before.
        ask: Asks the driver, with an epoch, the values and the curve so far; a false answer ends the trial.
        tell: Sends a message to the driver.

    Attributes:
        was_ended: Whether the driver has ended the trial.
    """

    def __init__(
        self,
        columns: Sequence[str],
        monitor: str,
        monitor_mode: str,
        *,
        asks_at: Callable[[int], bool],
        asked: int,
        ask: Callable[[int, Values, Curve], bool],
        tell: Callable[..., None],
    ) -> None:
        self.was_ended = False
        self._columns, self._monitor, self._mode = list(columns), monitor, resolved_mode(monitor, monitor_mode)
        self._asks_at, self._asked, self._ask, self._tell = asks_at, asked, ask, tell
        self._rows: list[dict[str, float]] = []
        self._told = 0.0

    def on_start(self, start: RunStart) -> None:
        """Take up what earlier processes trained, and ask what they did not come to ask."""
        _, rows = read_rows(Run(start.run_dir).metrics_csv)
        self._rows = [as_numbers(row) for row in rows][: start.first_epoch - 1]
        self._tell(kind="started", epochs=start.epochs, epoch=len(self._rows))
        for epoch in range(self._asked + 1, len(self._rows) + 1):
            self._decide(epoch)

    def on_progress(self, progress: Progress) -> None:
        """Give a sign of life, now and then."""
        if time.monotonic() - self._told > _SECONDS_BETWEEN_SIGNS:
            self._told = time.monotonic()
            self._tell(kind="alive")

    def on_rollback(self, to: Rollback) -> None:
        """Forget the epochs that will be trained again."""
        del self._rows[to.epoch - 1 :]

    def on_epoch(self, report: EpochReport) -> None:
        """Tell of the epoch, and ask whether to go on."""
        del self._rows[report.epoch - 1 :]
        self._rows.append(dict(report.logs))
        curve = [row.get(self._columns[0]) for row in self._rows[-1:]]
        self._tell(kind="epoch", epoch=report.epoch, value=curve[0])
        self._decide(report.epoch)

    def _decide(self, epoch: int) -> None:
        if self.was_ended or epoch <= self._asked or not self._asks_at(epoch):
            return
        rows = self._rows[:epoch]
        values = values_of_rows(rows, self._columns, self._monitor, self._mode)
        self._asked = epoch
        self.was_ended = not self._ask(epoch, values, [row.get(self._columns[0]) for row in rows])


def values_of_run(run: Run, columns: Sequence[str], monitor: str, monitor_mode: str) -> tuple[Values, Curve]:
    """Return the values of the objectives at the epoch whose weights a run keeps, and the curve of the first one.

    Raises:
        ObjectiveError: One of them is no column of `metrics.csv`.
    """
    _, rows = read_rows(run.metrics_csv)
    numbers = [as_numbers(row) for row in rows]
    best = run.manifest.get("best")
    curve = [row.get(columns[0]) for row in numbers]
    if best and 0 < best["epoch"] <= len(numbers):
        row = numbers[best["epoch"] - 1]
        return tuple(_value(row, column) for column in columns), curve
    return values_of_rows(numbers, columns, monitor, resolved_mode(monitor, monitor_mode)), curve


def values_of_rows(rows: Sequence[Mapping[str, float]], columns: Sequence[str], monitor: str, mode: str) -> Values:
    """Return the values of the objectives at the best of some epochs, by the watched value; NaN where there is none."""
    sign = -1 if mode == "max" else 1
    finite = [row for row in rows if math.isfinite(row.get(monitor, math.nan))]
    if not finite:
        return tuple(math.nan for _ in columns)
    best = min(finite, key=lambda row: sign * row[monitor])
    return tuple(_value(best, column) for column in columns)


def as_numbers(row: Mapping[str, str]) -> dict[str, float]:
    """Turn the cells of a row into numbers."""
    return {name: float(cell) for name, cell in row.items()}


def _value(row: Mapping[str, Any], column: str) -> float:
    if column not in row:
        known = ", ".join(sorted(set(row) - {"epoch", "step", "learning_rate"}))
        raise ObjectiveError(f"`{column}` is no column of metrics.csv. Expected one of {known}. Correct `objective`.")
    return float(row[column])
