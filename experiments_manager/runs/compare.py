"""What differs between runs: settings, code, packages, machine and results."""

from __future__ import annotations

import dataclasses
import difflib
import json
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments_manager.runs.errors import RunError
from experiments_manager.runs.folder import open_run
from experiments_manager.runs.run import Run

Differences = dict[str, list[Any]]
"""For each name whose values are not all the same, the value in each run; `None` where a run does not have it."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Runs side by side; lists follow the order of `runs`."""

    runs: list[str]
    """Paths of the run folders."""
    settings: Differences
    """All but the hparams."""
    hparams: Differences
    code: dict[str, list[str]]
    """For each file of the snapshots that differs, the unified diff from the first run to each *other* run (one entry
    less than `runs`); empty text where that run has the same file."""
    packages: Differences
    """Versions of installed packages."""
    git: Differences
    host: Differences
    results: Differences
    """`state`, `best`, `best_name`, `best_epoch`, `epochs`, `global_step` and `seconds`, whether they differ or not."""
    metrics: Differences
    """The last metrics by name, whether they differ or not."""

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

    def side_by_side(key: str) -> list[dict[str, Any]]:
        return [_dictionary(manifest.get(key)) for manifest in manifests]

    settings = [{name: value for name, value in row.items() if name != "hparams"} for row in side_by_side("settings")]
    return Comparison(
        runs=[str(run.path) for run in opened],
        settings=_differences(settings),
        hparams=_differences(side_by_side("hparams")),
        code=_code_differences([run.settings_dir for run in opened]),
        packages=_differences(side_by_side("packages")),
        git=_differences(side_by_side("git")),
        host=_differences(side_by_side("host")),
        results=_results(manifests),
        metrics=_table(side_by_side("metrics")),
    )


def run_letters(count: int) -> list[str]:
    """Give A to Z and then numbers, by which runs that stand side by side are told apart."""
    return [*string.ascii_uppercase, *map(str, range(26, count))][:count]


def differing(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys whose values differ between rows, or that only some have, in the order of their appearance."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if not _all_equal([[row[name]] if name in row else [] for row in rows])]


def _all_equal(values: Sequence[Any]) -> bool:
    # As JSON, because for Python 1, 1.0 and True are all the same.
    return len({json.dumps(value, sort_keys=True, default=repr) for value in values}) < 2


def _differences(rows: Sequence[Mapping[str, Any]]) -> Differences:
    return {name: values for name, values in _table(rows).items() if not _all_equal(values)}


def _results(manifests: Sequence[Mapping[str, Any]]) -> Differences:
    bests = [_dictionary(manifest.get("best")) for manifest in manifests]
    return {
        "state": [manifest.get("state") for manifest in manifests],
        "best": [best.get("value") for best in bests],
        "best_name": [best.get("name") for best in bests],
        "best_epoch": [best.get("epoch") for best in bests],
        "epochs": [manifest.get("epochs") for manifest in manifests],
        "global_step": [manifest.get("global_step") for manifest in manifests],
        "seconds": [manifest.get("seconds") for manifest in manifests],
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> Differences:
    """Put the values of every name side by side."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


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
