"""How far a run is: a bar over its epochs on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from experiments_manager.common.display.progress import ProgressDisplay
from experiments_manager.common.display.quantities import format_duration
from experiments_manager.events import EpochReport, Progress, RunEnd, RunStart, VersionPublished, Watcher, metrics_among


class EpochTiming:
    """How fast a run goes and how long it will go on."""

    MEASURE_SECONDS = 0.5
    """Rates over less time than this would jump about."""
    SMOOTHING = 0.3
    """Share of the newest measurement in a moving average."""

    def __init__(self, start: RunStart) -> None:
        """Begin where the run begins."""
        self._epochs = start.epochs
        self._steps_per_epoch = start.steps_per_epoch
        self.epochs_done: float = start.first_epoch - 1
        self.steps_per_second: float | None = None
        self._seconds_per_epoch: float | None = None
        self._reports = 0
        self._measured: tuple[float, int] | None = None

    def at_step(self, progress: Progress, now: float) -> None:
        """Take note of some steps; `now` in seconds."""
        self._steps_per_epoch = progress.steps_per_epoch or self._steps_per_epoch
        done = min(1.0, progress.step / self._steps_per_epoch) if self._steps_per_epoch else 0.0
        self.epochs_done = progress.epoch - 1 + done
        self._measure(progress.global_step, now)

    def at_epoch(self, report: EpochReport, now: float) -> None:
        """Take note of a whole epoch; `now` in seconds."""
        self.epochs_done = report.epoch
        self._reports += 1
        # The first epoch compiles, which says nothing about the others: the second one replaces it.
        earlier = self._seconds_per_epoch if self._reports > 2 else None
        self._seconds_per_epoch = self._smooth(earlier, report.seconds)
        self._measure(report.global_step, now)

    def remaining_seconds(self) -> float | None:
        """Time to the last epoch that the run may take; it may stop earlier."""
        seconds = self._seconds_per_epoch
        if seconds is None and self.steps_per_second and self._steps_per_epoch:
            seconds = self._steps_per_epoch / self.steps_per_second
        return None if seconds is None else seconds * max(0.0, self._epochs - self.epochs_done)

    def text(self) -> str:
        """Rate and remaining time, as far as they are known."""
        rate = self.steps_per_second
        remaining = self.remaining_seconds()
        parts = [
            "" if rate is None else f"{rate:,.0f} steps/s" if rate >= 10 else f"{rate:.2g} steps/s",
            "" if remaining is None else f"{format_duration(remaining)} left",
        ]
        return " ".join(part for part in parts if part)

    def _measure(self, global_step: int, now: float) -> None:
        if self._measured is None:
            self._measured = (now, global_step)
            return
        before, step_before = self._measured
        if now - before >= self.MEASURE_SECONDS:
            self.steps_per_second = self._smooth(self.steps_per_second, (global_step - step_before) / (now - before))
            self._measured = (now, global_step)

    def _smooth(self, average: float | None, newest: float) -> float:
        return newest if average is None else average + self.SMOOTHING * (newest - average)


LINE_SECONDS = 1.0
LINE_SECONDS_WITHIN_EPOCH = 30.0


def terminal_progress(stream: TextIO | None = None) -> Watcher:
    """Choose the display that suits where the output goes.

    Args:
        stream: Standard error by default.

    Returns:
        A `ProgressBar` on a terminal, `ProgressLines` elsewhere.
    """
    display = ProgressDisplay(stream, line_seconds=LINE_SECONDS)
    return ProgressBar(display) if display.moves else ProgressLines(display)


class ProgressBar(Watcher):
    """A bar over all epochs with epoch, step, rate, remaining time, loss and metrics."""

    def __init__(self, display: ProgressDisplay) -> None:
        """Remember where to draw."""
        self._display = display
        self._start: RunStart | None = None
        self._values: dict[str, float] = {}
        self._best_epoch: int | None = None
        self._version: int | None = None

    def on_start(self, start: RunStart) -> None:
        """Say what runs where, and draw the bar."""
        self._start = start
        self._timing = EpochTiming(start)
        self._display.say(headline(start))
        self._best_epoch = (start.reached.get("best") or {}).get("epoch")
        self._draw(start.first_epoch - 1, f"{start.unit} {start.first_epoch - 1}/{start.epochs}")

    def on_progress(self, progress: Progress) -> None:
        """Move the bar, if it is time to."""
        if not self._display.is_due():
            return
        self._timing.at_step(progress, self._display.clock())
        self._values.update(progress.read_logs())
        self._draw(self._timing.epochs_done, place_of(progress, self._start))

    def on_epoch(self, report: EpochReport) -> None:
        """Take the values of the epoch, and draw them if it is time to."""
        self._timing.at_epoch(report, self._display.clock())
        self._values = dict(report.logs)
        if report.improved:
            self._best_epoch = report.epoch
        if self._display.is_due():
            self._draw(report.epoch, f"{self._start.unit} {report.epoch}/{self._start.epochs}")

    def on_message(self, text: str) -> None:
        """Show a sentence above the bar."""
        self._display.say(text)

    def on_version(self, version: VersionPublished) -> None:
        """Name the version beside the values: short epochs bring too many for lines of their own."""
        self._version = version.version

    def on_end(self, end: RunEnd) -> None:
        """Take the bar away and sum up."""
        self._display.close()
        if self._start is None:
            return
        self._display.say(summary_line(end, self._start))

    def _draw(self, epochs_done: float, place: str) -> None:
        parts = [self._timing.text(), format_values(self._values)]
        if self._best_epoch is not None:
            parts.append(f"best at {self._start.unit} {self._best_epoch}")
        if self._version is not None:
            parts.append(f"version {self._version}")
        self._display.show(place, "  ".join(filter(None, parts)), done=epochs_done, total=self._start.epochs)


class ProgressLines(Watcher):
    """One line an epoch, at most one a second, and always the last; within long epochs a line every half minute."""

    def __init__(self, display: ProgressDisplay) -> None:
        """Remember where to write."""
        self._display = display
        self._start: RunStart | None = None
        self._written_at = float("-inf")
        self._unwritten: EpochReport | None = None
        self._version: int | None = None

    def on_start(self, start: RunStart) -> None:
        """Say what runs where."""
        self._start = start
        self._timing = EpochTiming(start)
        self._display.say(headline(start))
        self._began_at = self._display.clock()

    def on_progress(self, progress: Progress) -> None:
        """Write a line if nothing was written for long."""
        now = self._display.clock()
        if now - max(self._written_at, self._began_at) < LINE_SECONDS_WITHIN_EPOCH:
            return
        self._timing.at_step(progress, now)
        values = format_values(progress.read_logs())
        self._line("  ".join([place_of(progress, self._start), values, self._timing.text()]))

    def on_epoch(self, report: EpochReport) -> None:
        """Write the values of the epoch, if it is time to."""
        self._timing.at_epoch(report, self._display.clock())
        self._unwritten = report
        if self._display.clock() - self._written_at >= LINE_SECONDS:
            self._write_epoch()

    def on_version(self, version: VersionPublished) -> None:
        """Name the version in the next line."""
        self._version = version.version

    def on_message(self, text: str) -> None:
        """Write a sentence on a line of its own."""
        self._display.say(text)

    def on_end(self, end: RunEnd) -> None:
        """Write the last epoch if it was not written, and sum up."""
        if self._start is None:
            return
        if self._unwritten is not None:
            self._write_epoch()
        self._line(summary_line(end, self._start))

    def _write_epoch(self) -> None:
        report, self._unwritten = self._unwritten, None
        place = f"{self._start.unit} {report.epoch}/{self._start.epochs}"
        parts = [place, format_values(report.logs), f"{report.seconds:.3g} s"]
        if report.improved:
            parts.append("best so far")
        if self._version is not None:
            parts.append(f"version {self._version}")
            self._version = None
        self._line("  ".join(parts))

    def _line(self, text: str) -> None:
        self._written_at = self._display.clock()
        self._display.say(text)


def headline(start: RunStart) -> str:
    """Return what runs where, and how a resume would find its place in the data."""
    resumed = f", from {start.unit} {start.first_epoch} on" if start.first_epoch > 1 else ""
    what = f"{start.session_name}: {start.parameters:,} parameters on {', '.join(start.devices)}{resumed}"
    lines = [what, *([f"position in the data: {start.data_position}"] if start.data_position else [])]
    return "\n".join([*lines, *(f"a resume is not exact: {reason}" for reason in start.inexact_reasons)])


def place_of(progress: Progress, start: RunStart) -> str:
    """Epoch and step, with their totals where these are known."""
    steps = "" if progress.steps_per_epoch is None else f"/{progress.steps_per_epoch}"
    return f"{start.unit} {progress.epoch}/{start.epochs} step {progress.step}{steps}"


def summary_line(end: RunEnd, start: RunStart) -> str:
    """Return one line on how the run ended: state, best value, run folder and exported model."""
    parts = [f"{end.state} after {end.epochs} {start.unit}s in {format_duration(end.seconds)}"]
    if end.best:
        parts.append(f"best {end.best['name']} {end.best['value']:.5g} at {start.unit} {end.best['epoch']}")
    folder = end.run_dir or start.run_dir
    parts.append(f"run {folder}")
    if end.exported_model is not None:
        parts.append(f"model {_within(end.exported_model, folder)}")
    return "; ".join(parts)


def _within(path: Path, folder: Path) -> Path:
    """Shorten a path inside the run folder."""
    with contextlib.suppress(ValueError):
        return path.relative_to(folder)
    return path


def format_values(values: Mapping[str, float]) -> str:
    """Name and values with four significant digits, without what is counted of a federation's round."""
    return "  ".join(f"{name} {values[name]:.4g}" for name in metrics_among(values))
