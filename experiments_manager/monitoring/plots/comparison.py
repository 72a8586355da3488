"""Curves of several runs in one figure, read from the run folders; works without TensorFlow."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments_manager.common.atomic import write_bytes
from experiments_manager.monitoring.metrics_csv import read_rows
from experiments_manager.monitoring.plots import canvas
from experiments_manager.monitoring.plots.curves import LearningCurves, metric_names, overlaid_curves
from experiments_manager.runs import Run, RunError, open_run
from experiments_manager.runs.compare import differing, run_letters

_LONGEST_LABEL = 90


def plot_runs(runs: Sequence[Run | Path | str], file: Path | str) -> Path:
    """Draw the curves of runs over each other, one panel a metric, and write them to a file.

    Training is dashed, validation solid, and a dot marks the best epoch. The legend names each run by its letter (A for
    the first) and by the hparams in which the runs differ.

    Args:
        runs: Runs, or paths to run folders. A run without finished epochs is in the legend alone.
        file: Where to write; its ending (`.png`, `.svg` or `.pdf`) tells the format.

    Returns:
        `file`.

    Raises:
        RunError: The ending is none of these, a run cannot be read, no run has finished an epoch, or the file cannot be
            written.
    """
    file = Path(file).expanduser()
    check_ending(file)
    opened = [run if isinstance(run, Run) else open_run(run) for run in runs]
    curves = [
        read_curves(run, f"{letter}  {label}")
        for letter, run, label in zip(
            run_letters(len(opened)), opened, labels(opened, [run.manifest for run in opened]), strict=True
        )
    ]
    if not metric_names(curves):
        raise RunError(
            f"There is nothing to draw. Expected a run that has finished an epoch, got {len(opened)} without. Wait for "
            "the first epoch, or name another run."
        )
    content = canvas.encode(overlaid_curves(curves), file.suffix.lower(), dpi=150)
    write_file(file, content)
    return file


def write_file(file: Path, content: bytes) -> None:
    """Write a file that the user asked for, and the folders that lead to it.

    What is no ordinary file, such as `/dev/stdout` or a pipe, is written to; others are replaced.

    Raises:
        RunError: It could not be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if file.exists() and not file.is_file():
            file.write_bytes(content)
        else:
            write_bytes(file, content)
    except OSError as error:
        raise RunError(f"Cannot write {file}: {error.strerror}. Choose another place.") from error


def check_ending(file: Path) -> None:
    """Refuse a file whose ending names no format.

    Raises:
        RunError: It is not `.png`, `.svg` or `.pdf`.
    """
    if file.suffix.lower() not in canvas.FORMATS:
        got = f"{file.suffix!r}" if file.suffix else "none"
        raise RunError(
            f"{file}: the ending names the format of the picture. Expected {', '.join(canvas.FORMATS)}, got {got}. "
            f"Write {file.with_suffix('.png')}, for instance."
        )


def read_curves(run: Run, label: str) -> LearningCurves:
    """Read what a run logged; empty where it has finished no epoch."""
    _, rows = read_rows(run.metrics_csv)
    best = run.manifest.get("best")
    return LearningCurves.from_rows(label, rows, best.get("epoch") if isinstance(best, dict) else None, unit=run.unit)


def labels(runs: Sequence[Run], manifests: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name each run by the hparams in which the runs differ, else by such settings, else by its folder.

    Args:
        runs: The runs.
        manifests: Their run.json, or what is known of it.
    """
    for part in ("hparams", "settings"):
        values = [manifest.get(part) or {} for manifest in manifests]
        if names := [name for name in differing(values) if name != "hparams"]:
            texts = [", ".join(f"{name}={_shown(each[name])}" for name in names if name in each) for each in values]
            return [canvas.shortened(text or f"(none of these {part})", _LONGEST_LABEL) for text in texts]
    return [canvas.shortened(run.name, _LONGEST_LABEL) for run in runs]


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
