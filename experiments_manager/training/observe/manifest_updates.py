"""Keeps `run.json` up to date while a run goes on, so that lists of runs tell how far it is."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from typing import Any

from experiments_manager.events import EpochReport, Progress, RunStart, VersionPublished, Watcher
from experiments_manager.runs import Run, RunError

SECONDS_BETWEEN_UPDATES = 1.0
"""Epochs may be shorter than a write to the disk."""


class ManifestUpdates(Watcher):
    """Writes epochs, metrics, best value and newest version, once a second at the most.

    Args:
        run: The run.
        when_begun: Further fields, written when the first steps are done. The settings that a resume changes are kept
            only then: had they made it fail, they would make each further resume fail.
    """

    in_background = True

    def __init__(self, run: Run, when_begun: Mapping[str, Any] | None = None) -> None:
        self._run = run
        self._when_begun = dict(when_begun or {})
        self._written = -math.inf
        self.has_begun = False
        """Whether steps were trained."""
        self.reached: dict[str, Any] = {}
        """How far training came, also where that could not be written."""

    def on_start(self, start: RunStart) -> None:
        """Remember how far training came before: run.json may be behind that, if the run was killed."""
        self.reached = dict(start.reached) if start.global_step else {}

    def on_progress(self, progress: Progress) -> None:
        """Write, after the first steps, what was to be written then."""
        if not self.has_begun:
            self.has_begun = True
            self._update()

    def on_epoch(self, report: EpochReport) -> None:
        """Write what the epoch came to, unless something was written just now."""
        fields = {"epochs": report.epoch, "global_step": report.global_step, "metrics": dict(report.logs)}
        self.reached = {**fields, "best": report.best}
        if time.monotonic() - self._written < SECONDS_BETWEEN_UPDATES:
            return
        self._written = time.monotonic()
        self._update(**self.reached)

    def on_version(self, version: VersionPublished) -> None:
        """Write which version is the newest."""
        self._update(last_version=version.version, exported_model=f"{self._run.exports_dir.name}/{version.version}")

    def _update(self, **fields: object) -> None:
        with contextlib.suppress(RunError):  # a full disk; the next epoch tries again
            if fields or self._when_begun:
                self._run.update(**self._when_begun, **fields)
                self._when_begun = {}
