"""How far a run is, on the terminal: a bar that moves in place, or plain lines where the output is no terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from experiments_manager import events
from experiments_manager.common.quantities import format_duration
from experiments_manager.events import EpochReport, RunEnd, RunStart, VersionPublished, Watcher, metrics_among
from experiments_manager.monitoring.timing import EpochTiming

REDRAW_SECONDS = 0.1
LINE_SECONDS = 1.0
LINE_SECONDS_WITHIN_EPOCH = 30.0

Clock = Callable[[], float]


def terminal_progress(stream: TextIO | None = None) -> Watcher:
    """Choose the display that suits where the output goes.

    Args:
        stream: Standard error by default.

    Returns:
        A `ProgressBar` on a terminal, `ProgressLines` elsewhere.
    """
    console = Console(file=LastingStream(stream or sys.stderr), highlight=False, soft_wrap=True)
    moves_in_place = console.is_terminal and not console.is_dumb_terminal and not console.is_jupyter
    return ProgressBar(console) if moves_in_place else ProgressLines(console)


class ProgressBar(Watcher):
    """A bar over all epochs with epoch, step, rate, remaining time, loss and metrics.

    It draws in the calling thread, only when it is told something and ten times a second at most, so that it takes next
    to no time from training.
    """

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        """Remember where to draw, and what tells the time in seconds."""
        self._console = console
        self._clock = clock
        self._start: RunStart | None = None
        self._bar = Progress(
            TextColumn("{task.fields[place]}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8, max_width=40)),
            TextColumn("{task.fields[timing]}", markup=False, table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[values]}", markup=False, table_column=Column(ratio=4, no_wrap=True)),
            console=console,
            auto_refresh=False,
            transient=True,
            expand=True,
        )
        self._drawn_at = float("-inf")
        self._values: dict[str, float] = {}
        self._best_epoch: int | None = None
        self._version: int | None = None

    def on_start(self, start: RunStart) -> None:
        """Say what runs where, and draw the bar."""
        self._start = start
        self._timing = EpochTiming(start)
        self._console.print(headline(start), markup=False)
        self._best_epoch = (start.reached.get("best") or {}).get("epoch")
        done = start.first_epoch - 1
        place = f"{start.unit} {done}/{start.epochs}"
        self._task = self._bar.add_task("", total=start.epochs, completed=done, place=place, timing="", values="")
        self._bar.start()
        self._bar.refresh()

    def on_progress(self, progress: events.Progress) -> None:
        """Move the bar, if it is time to."""
        if not self._is_due():
            return
        self._timing.at_step(progress, self._clock())
        self._values.update(progress.read_logs())
        self._draw(self._timing.epochs_done, place_of(progress, self._start))

    def on_epoch(self, report: EpochReport) -> None:
        """Take the values of the epoch, and draw them if it is time to."""
        self._timing.at_epoch(report, self._clock())
        self._values = dict(report.logs)
        if report.improved:
            self._best_epoch = report.epoch
        if self._is_due():
            self._draw(report.epoch, f"{self._start.unit} {report.epoch}/{self._start.epochs}")

    def on_message(self, text: str) -> None:
        """Show a sentence above the bar."""
        self._console.print(text, markup=False)

    def on_version(self, version: VersionPublished) -> None:
        """Name the version beside the values: short epochs bring too many for lines of their own."""
        self._version = version.version

    def on_end(self, end: RunEnd) -> None:
        """Take the bar away and sum up."""
        self._bar.stop()
        if self._start is None:
            return
        self._console.print(summary_line(end, self._start), markup=False)

    def _is_due(self) -> bool:
        return self._clock() - self._drawn_at >= REDRAW_SECONDS

    def _draw(self, epochs_done: float, place: str) -> None:
        self._drawn_at = self._clock()
        values = format_values(self._values)
        if self._best_epoch is not None:
            values += f"  best at {self._start.unit} {self._best_epoch}"
        if self._version is not None:
            values += f"  version {self._version}"
        self._bar.update(self._task, completed=epochs_done, place=place, timing=self._timing.text(), values=values)
        self._bar.refresh()


class ProgressLines(Watcher):
    """One line an epoch, at most one a second, and always the last; within long epochs a line every half minute."""

    def __init__(self, console: Console, clock: Clock = time.monotonic) -> None:
        """Remember where to write, and what tells the time in seconds."""
        self._console = console
        self._clock = clock
        self._start: RunStart | None = None
        self._written_at = float("-inf")
        self._unwritten: EpochReport | None = None
        self._version: int | None = None

    def on_start(self, start: RunStart) -> None:
        """Say what runs where."""
        self._start = start
        self._timing = EpochTiming(start)
        self._console.print(headline(start), markup=False)
        self._began_at = self._clock()

    def on_progress(self, progress: events.Progress) -> None:
        """Write a line if nothing was written for long."""
        now = self._clock()
        if now - max(self._written_at, self._began_at) < LINE_SECONDS_WITHIN_EPOCH:
            return
        self._timing.at_step(progress, now)
        values = format_values(progress.read_logs())
        self._line("  ".join([place_of(progress, self._start), values, self._timing.text()]))

    def on_epoch(self, report: EpochReport) -> None:
        """Write the values of the epoch, if it is time to."""
        self._timing.at_epoch(report, self._clock())
        self._unwritten = report
        if self._clock() - self._written_at >= LINE_SECONDS:
            self._write_epoch()

    def on_version(self, version: VersionPublished) -> None:
        """Name the version in the next line."""
        self._version = version.version

    def on_message(self, text: str) -> None:
        """Write a sentence on a line of its own."""
        self._console.print(text, markup=False)

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
        self._written_at = self._clock()
        self._console.print(text, markup=False)


class LastingStream:
    """Writes to a stream until that fails, then to nowhere: a closed terminal must not stop a run."""

    def __init__(self, stream: TextIO) -> None:
        """Wrap a text stream."""
        self._stream = stream
        self._is_gone = False

    def write(self, text: str) -> int:
        """Write if the stream still takes it."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush if the stream still takes it."""
        self._try(self._stream.flush)

    def isatty(self) -> bool:
        """Return whether the stream is a terminal; what somebody has put in the place of one may not know."""
        return getattr(self._stream, "isatty", lambda: False)()

    def fileno(self) -> int:
        """Return number of the underlying file."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:
        """Encoding of the stream: tells rich which characters it may draw with."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def _try(self, action: Callable[[], object]) -> None:
        if self._is_gone:
            return
        try:
            action()
        except (OSError, ValueError):  # ValueError: the stream was closed.
            self._is_gone = True


def headline(start: RunStart) -> str:
    """Return what runs where, and how a resume would find its place in the data."""
    resumed = f", from {start.unit} {start.first_epoch} on" if start.first_epoch > 1 else ""
    what = f"{start.session_name}: {start.parameters:,} parameters on {', '.join(start.devices)}{resumed}"
    lines = [what, *([f"position in the data: {start.data_position}"] if start.data_position else [])]
    return "\n".join([*lines, *(f"a resume is not exact: {reason}" for reason in start.inexact_reasons)])


def place_of(progress: events.Progress, start: RunStart) -> str:
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
