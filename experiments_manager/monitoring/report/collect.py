"""What a report tells of each run, read from its folder; also of one that is damaged, failed or still going."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments_manager.common.jsonable import to_jsonable
from experiments_manager.monitoring.plots.comparison import labels, read_curves
from experiments_manager.monitoring.plots.curves import LearningCurves
from experiments_manager.monitoring.plots.run_figures import FOLDER
from experiments_manager.runs import Run, RunError, RunRow, list_runs, open_run
from experiments_manager.runs.compare import run_letters
from experiments_manager.settings.monitor_mode import resolved_mode
from experiments_manager.settings.schema import SETTINGS

LONGEST_DIFF = 200_000
"""Characters of git.diff that are shown, shared by all runs of a page."""


@dataclasses.dataclass
class ReportedRun:
    """One run of a report."""

    letter: str
    label: str
    """The hparams or settings by which it differs from the others, or its name."""
    row: RunRow
    manifest: Mapping[str, Any]
    curves: LearningCurves
    figures: list[Path]
    """PNG files of `figures/`."""
    diff: str
    """The uncommitted diff, cut where it is long."""
    rank: int | None = None
    """0 for the best of the runs of an experiment that watch the same value; `None` where there is no best value."""

    @property
    def key(self) -> str:
        """Its identity in the page."""
        return f"run-{self.letter}"

    @property
    def experiment(self) -> str:
        """The experiment that it is a run of; empty where its run.json does not tell."""
        return str((self.manifest.get("settings") or {}).get("session_name") or "")

    @property
    def best_metrics(self) -> dict[str, float]:
        """Values at the best epoch; those of the last epoch where there is no best one."""
        if self.curves.best_epoch is not None:
            return {name: self.curves.at_best(name) for name in self.curves.columns if name != "learning_rate"}
        return self.last_metrics

    @property
    def last_metrics(self) -> dict[str, float]:
        """Values of the last epoch."""
        return {
            name: float(values[-1])
            for name, values in self.curves.columns.items()
            if len(values) and name != "learning_rate"
        }

    @property
    def changed_settings(self) -> dict[str, Any]:
        """Settings that have not their default, the hparams apart."""
        settings = self.manifest.get("settings") or {}
        return {name: value for name, value in settings.items() if name != "hparams" and not is_default(name, value)}


def collect_runs(place: Path | str) -> tuple[Path, list[ReportedRun]]:
    """Read all runs below a folder, or the one run that the folder is or that it belongs to.

    Args:
        place: A folder of runs, a run folder, or something inside of one.

    Returns:
        The folder that was meant, and its runs in the order of their start.

    Raises:
        RunError: There is no run.
    """
    place = Path(place).expanduser()
    rows = list_runs(place) if place.is_dir() else []
    if not rows:
        place = open_run(place).path
        rows = list_runs(place)
    runs = [Run(row.path) for row in rows]
    manifests = [_manifest(run) for run in runs]
    cells = zip(run_letters(len(rows)), rows, runs, manifests, strict=True)
    reported = [
        ReportedRun(
            letter=letter,
            label="",
            row=row,
            manifest=manifest,
            curves=_curves(run, f"run-{letter}"),
            figures=sorted((run.path / FOLDER).glob("*.png")),
            diff=_read_diff(run, LONGEST_DIFF // len(rows)),
        )
        for letter, row, run, manifest in cells
    ]
    for group in by_experiment(reported).values():
        names = labels([Run(run.row.path) for run in group], [run.manifest for run in group])
        for run, name in zip(group, names, strict=True):
            run.label = name
        _rank(group)
    return place.resolve(), reported


def by_experiment(runs: Sequence[ReportedRun]) -> dict[str, list[ReportedRun]]:
    """Return the runs of each experiment, the one begun first before others, and runs that cannot be read last."""
    groups: dict[str, list[ReportedRun]] = {}
    for run in sorted(runs, key=lambda run: not run.manifest):
        groups.setdefault(run.experiment, []).append(run)
    return groups


def is_default(name: str, value: Any) -> bool:
    """Return whether a setting, as run.json holds it, has its default."""
    return name in SETTINGS and to_jsonable(SETTINGS[name].default) == value


def _manifest(run: Run) -> dict[str, Any]:
    try:
        return run.manifest
    except RunError:
        return {}


def _curves(run: Run, key: str) -> LearningCurves:
    try:
        return dataclasses.replace(read_curves(run, key), key=key)
    except (RunError, OSError, ValueError):
        return LearningCurves.from_rows(key, [])


def _read_diff(run: Run, limit: int) -> str:
    try:
        with run.git_diff.open(encoding="utf-8", errors="replace") as stream:
            text = stream.read(limit + 1)
    except OSError:
        return ""
    return text if len(text) <= limit else f"{text[:limit]}\n… cut here; the whole of it is in {run.git_diff}"


def _rank(runs: Sequence[ReportedRun]) -> None:
    for monitor in {run.row.best_name for run in runs if run.row.best_name}:
        group = [run for run in runs if run.row.best_name == monitor and run.row.best is not None]
        group = [run for run in group if math.isfinite(run.row.best)]
        modes = {(run.manifest.get("settings") or {}).get("monitor_mode") or "auto" for run in group}
        sign = -1 if modes and resolved_mode(monitor, modes.pop()) == "max" else 1
        for rank, run in enumerate(sorted(group, key=lambda run: sign * run.row.best)):
            run.rank = rank
