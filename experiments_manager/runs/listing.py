"""The runs below a folder, as rows of a table."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments_manager.common.jsonable import to_jsonable
from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.runs.errors import RunError
from experiments_manager.runs.locking import LOCK_FILE, is_held
from experiments_manager.runs.run import MANIFEST, Run

DEPTH = 4
"""Levels of folders below the given one in which runs are looked for."""
_SKIPPED = {"__pycache__", "mlruns", "node_modules", "site-packages"}


@dataclasses.dataclass(frozen=True)
class RunRow:
    """One run in a list."""

    name: str
    state: str
    """As in run.json, or `killed`: run.json says `running`, but no living process holds the run's lock; or
    `unreadable`: run.json is damaged or too new."""
    hparams: dict[str, Any]
    best: float | None
    """The best watched value."""
    best_name: str | None
    best_epoch: int | None
    epochs: int | None
    """Completed epochs."""
    seconds: float | None
    start: str | None
    """ISO 8601 with zone."""
    path: Path
    problem: str | None = None
    """Why an `unreadable` run is that, or why its job failed."""
    job: str | None = None
    """Number of the cluster's job that it belongs to."""

    def to_json(self) -> dict[str, Any]:
        """Give the row as plain JSON values."""
        return to_jsonable(dataclasses.asdict(self))


COLUMNS = tuple(field.name for field in dataclasses.fields(RunRow) if field.name not in ("hparams", "problem", "job"))
"""What `list_runs` sorts by, besides the names of hparams."""


def list_runs(
    directory: Path | str, sort: str | None = None, *, descending: bool = False, clients: bool = False
) -> list[RunRow]:
    """List the runs in a folder and up to four levels below it.

    Hidden folders and what is inside of a run are not searched.

    Args:
        directory: The folder; a run folder lists itself, the folder `clients` of a federation its clients.
        sort: A column (`name`, `state`, `best`, `epochs`, `seconds`, `start`, `path`, …) or the name of a
            hyperparameter; by default the start. Rows that lack the value come last.
        descending: Largest value first.
        clients: Whether to list the runs of clients, too, each federation's below its own.

    Returns:
        One row a run.

    Raises:
        RunError: There is no such folder, or no such column; then the nearest name is given.
    """
    directory = Path(directory).expanduser()
    if not directory.is_dir():
        raise RunError(f"There is no folder {directory}. Expected a folder of runs. Check the path.")
    rows, column = [_row(Run(path)) for path in _run_folders(directory.resolve(), DEPTH)], sort or "start"
    below = {row.path: list_clients(Run(row.path)) if clients else [] for row in rows}
    _check_column(column, [*rows, *(client for own in below.values() for client in own)])
    listed = _sorted(rows, column, descending)
    return [each for row in listed for each in (row, *_sorted(below[row.path], column, descending))]


def list_clients(run: Run) -> list[RunRow]:
    """List the runs of the clients of a federation by their numbers; none where it has no such runs."""
    return [_row(Run(path)) for path in _run_folders(run.clients_dir, 1)] if run.clients_dir.is_dir() else []


def _run_folders(folder: Path, depth: int) -> Iterator[Path]:
    if (folder / MANIFEST).is_file():
        yield folder
        return
    if depth == 0:
        return
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for name in sorted(names, key=_natural_order):
        if not name.startswith(".") and name not in _SKIPPED:
            yield from _run_folders(folder / name, depth - 1)


def _natural_order(name: str) -> tuple[bool, int, str]:
    """Sort the numbers of clients as numbers, before all other names."""
    is_number = name.isascii() and name.isdecimal()
    return (not is_number, int(name) if is_number else 0, name)


def _row(run: Run) -> RunRow:
    try:
        manifest = run.manifest
    except RunError as error:
        return RunRow(run.name, "unreadable", {}, None, None, None, None, None, None, run.path, str(error))
    best = _dictionary(manifest.get("best"))
    return RunRow(
        name=run.name,
        state=_state(run, str(manifest.get("state"))),
        hparams=_dictionary(manifest.get("hparams")),
        best=_number(best.get("value")),
        best_name=best.get("name"),
        best_epoch=best.get("epoch"),
        epochs=manifest.get("epochs"),
        seconds=_number(manifest.get("seconds")),
        start=manifest.get("start"),
        path=run.path,
        job=_dictionary(manifest.get("job")).get("id"),
    )


def _state(run: Run, state: str) -> str:
    if state == "running" and not is_held((run.federation or run).path / LOCK_FILE):
        return "killed"
    return state


def _check_column(column: str, rows: list[RunRow]) -> None:
    hparams = dict.fromkeys(name for row in rows for name in row.hparams)
    if column not in COLUMNS and column not in hparams:
        known = [*COLUMNS, *hparams]
        hint = did_you_mean(column, known, f"Choose one of {', '.join(known)}.")
        raise RunError(f"Runs cannot be sorted by {column!r}. Expected a column or a hyperparameter. {hint}")


def _sorted(rows: list[RunRow], column: str, descending: bool) -> list[RunRow]:
    def value(row: RunRow) -> Any:
        return getattr(row, column) if column in COLUMNS else row.hparams.get(column)

    present = [row for row in rows if _is_present(value(row))]
    absent = [row for row in rows if not _is_present(value(row))]
    return sorted(present, key=lambda row: _sort_key(value(row)), reverse=descending) + absent


def _is_present(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _sort_key(value: Any) -> tuple[int, float, str]:
    """Sort numbers before everything else, which is compared as text."""
    number = _number(value)
    return (1, 0.0, str(value)) if number is None else (0, number, "")


def _number(value: Any) -> float | None:
    """Read a number as run.json holds it, where NaN and the infinities are strings."""
    if isinstance(value, (int, float)) or value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    return None


def _dictionary(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
