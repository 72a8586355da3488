"""A profile of a few training steps, for TensorBoard's profile page."""

from __future__ import annotations

import logging
from pathlib import Path

from experiments_manager.events import EpochReport, Progress, RunEnd, RunStart, Watcher

logger = logging.getLogger(__name__)


class StepProfile(Watcher):
    """Profiles one call of the compiled loop (about 50 ms of steps) in the second epoch, when all is compiled.

    Args:
        logs_dir: The run's `logs/`; the profile goes to `plugins/profile/` in it.
    """

    def __init__(self, logs_dir: Path) -> None:
        self._logs_dir = logs_dir
        self._begin_after = 1
        self._running = False

    def on_start(self, start: RunStart) -> None:
        """Choose the epoch: the second of those that are trained here, or the only one."""
        self._begin_after = min(start.first_epoch, start.epochs - 1)
        if self._begin_after < start.first_epoch:
            self._start()

    def on_epoch(self, report: EpochReport) -> None:
        """Begin after the first epoch."""
        if report.epoch == self._begin_after:
            self._start()

    def on_progress(self, progress: Progress) -> None:
        """End the profile after one call of the compiled loop."""
        self._stop()

    def on_end(self, end: RunEnd) -> None:
        """End it where no further step came."""
        self._stop()

    def _start(self) -> None:
        import tensorflow as tf

        try:
            tf.profiler.experimental.start(str(self._logs_dir))
        except tf.errors.OpError as error:  # somebody else profiles this process already
            logger.warning("No profile is recorded: %s", error.message)
            return
        self._running = True

    def _stop(self) -> None:
        if not self._running:
            return
        import tensorflow as tf

        self._running = False
        tf.profiler.experimental.stop()
