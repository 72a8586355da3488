"""Keeps `run.json` up to date while a run goes on, so that lists of runs tell how far it is."""

from __future__ import annotations

import contextlib
import math
import time

from experiments_manager.runs import Run, RunError
from experiments_manager.training.events import EpochReport, RunStart, VersionPublished, Watcher

SECONDS_BETWEEN_UPDATES = 1.0
"""Epochs may be shorter than a write to the disk."""


class ManifestUpdates(Watcher):
    """Writes epochs, metrics, best value and newest version, once a second at the most."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._monitor = ""
        self._best: dict | None = None
        self._written = -math.inf

    def on_start(self, start: RunStart) -> None:
        """Remembers what is watched."""
        self._monitor = start.monitor
        self._best = self._run.manifest.get("best")

    def on_epoch(self, report: EpochReport) -> None:
        """Writes what the epoch came to, unless something was written just now."""
        if report.improved:
            value = report.logs[self._monitor]
            self._best = {"epoch": report.epoch, "step": report.global_step, "value": value, "name": self._monitor}
        if time.monotonic() - self._written < SECONDS_BETWEEN_UPDATES:
            return
        self._written = time.monotonic()
        fields = {"epochs": report.epoch, "global_step": report.global_step, "metrics": dict(report.logs)}
        self._update(best=self._best, **fields)

    def on_version(self, version: VersionPublished) -> None:
        """Writes which version is the newest."""
        self._update(last_version=version.version, exported_model=version.path.relative_to(self._run.path).as_posix())

    def _update(self, **fields: object) -> None:
        with contextlib.suppress(RunError):  # a full disk; the next epoch tries again
            self._run.update(**fields)
