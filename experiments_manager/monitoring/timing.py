"""How fast a run goes and how long it will go on."""

from __future__ import annotations

from experiments_manager.common.display.quantities import format_duration
from experiments_manager.events import EpochReport, Progress, RunStart


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
