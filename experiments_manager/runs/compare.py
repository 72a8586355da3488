"""What differs between runs: settings, code, packages, machine and results."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments_manager.runs.errors import RunError
from experiments_manager.runs.folder import open_run
from experiments_manager.runs.run import Run

Differences = dict[str, list[Any]]
"""For each name whose values are not all the same, the value in each run; `None` where a run does not have it."""

_SHOWN_AS_HPARAMS = ("hparams",)
_RESULTS = ("state", "best", "epochs", "global_step", "seconds", "metrics")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Runs side by side; lists follow the order of `runs`."""

    runs: list[str]
    """Paths of the run folders."""
    settings: Differences
    hparams: Differences
    code: dict[str, list[str]]
    """For each file of the snapshots that differs, the unified diff from the first run to each *other* run (one entry
    less than `runs`); empty text where that run has the same file."""
    packages: Differences
    """Versions of installed packages."""
    git: Differences
    host: Differences
    results: Differences
    """State, best value, epochs, seconds and last metrics of each run, whether they differ or not."""

    def to_json(self) -> dict[str, Any]:
        """Give the comparison as plain JSON values."""
        return dataclasses.asdict(self)


def compare_runs(runs: Sequence[Run | Path | str]) -> Comparison:
    """Compare two or more runs.

    Args:
        runs: Runs, or paths to run folders.

    Returns:
        What differs.

    Raises:
        RunError: There are fewer than two, or one cannot be read.
    """
    opened = [run if isinstance(run, Run) else open_run(run) for run in runs]
    if len(opened) < 2:
        raise RunError(f"There is nothing to compare. Expected two runs or more, got {len(opened)}. Name another run.")
    manifests = [run.manifest for run in opened]

    def differing(key: str, without: Iterable[str] = ()) -> Differences:
        return _differences([_dictionary(manifest.get(key)) for manifest in manifests], without)

    return Comparison(
        runs=[str(run.path) for run in opened],
        settings=differing("settings", without=_SHOWN_AS_HPARAMS),
        hparams=differing("hparams"),
        code=_code_differences([run.settings_dir for run in opened]),
        packages=differing("packages"),
        git=differing("git"),
        host=differing("host"),
        results=_results(manifests),
    )


def _differences(tables: Sequence[Mapping[str, Any]], without: Iterable[str] = ()) -> Differences:
    names = dict.fromkeys(name for table in tables for name in table if name not in without)
    rows = {name: [table.get(name) for table in tables] for name in names}
    return {name: values for name, values in rows.items() if not _all_equal(values)}


def _all_equal(values: Iterable[Any]) -> bool:
    # As JSON, because for Python 1, 1.0 and True are all the same.
    return len({json.dumps(value, sort_keys=True) for value in values}) == 1


def _results(manifests: Sequence[Mapping[str, Any]]) -> Differences:
    results: Differences = {}
    for key in _RESULTS:
        if key == "best":
            bests = [_dictionary(manifest.get("best")) for manifest in manifests]
            results["best"] = [best.get("value") for best in bests]
            results["best_name"] = [best.get("name") for best in bests]
            results["best_epoch"] = [best.get("epoch") for best in bests]
        elif key == "metrics":
            metrics = [_dictionary(manifest.get("metrics")) for manifest in manifests]
            for name in dict.fromkeys(name for values in metrics for name in values):
                results[name] = [values.get(name) for values in metrics]
        else:
            results[key] = [manifest.get(key) for manifest in manifests]
    return results


def _code_differences(folders: Sequence[Path]) -> dict[str, list[str]]:
    snapshots = [_read_snapshot(folder) for folder in folders]
    names = sorted({name for snapshot in snapshots for name in snapshot})
    first, *others = snapshots
    diffs = {name: [_diff(name, first.get(name), other.get(name)) for other in others] for name in names}
    return {name: texts for name, texts in diffs.items() if any(texts)}


def _read_snapshot(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc")
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def _diff(name: str, first: bytes | None, other: bytes | None) -> str:
    if first == other:
        return ""
    old, new = f"a/{name}", f"b/{name}"
    try:
        texts = [(content or b"").decode("utf-8").splitlines(keepends=True) for content in (first, other)]
    except UnicodeDecodeError:
        return f"Binary files {old} and {new} differ\n"
    lines = difflib.unified_diff(*texts, "/dev/null" if first is None else old, "/dev/null" if other is None else new)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _dictionary(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
