"""A federation's state on disk: a folder a round, whole or not there, proved by checksums."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments_manager.common import atomic, disk_space
from experiments_manager.common.checksums import DamagedError, verify_checksums, write_checksums
from experiments_manager.common.error_text import reason
from experiments_manager.federated.array_records import named_dtype
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.server.federation_state import BestRound, FederationState

LATEST = "latest"
"""File in `checkpoints/` that names the newest round."""
KEEP = 3
"""Rounds that are kept."""
SCHEMA_VERSION = 1
_PREFIX = "round_"
_GROUPS = ("arrays", "strategy_arrays", "extra_arrays")


def write_state(folder: Path, state: FederationState, keep: int = KEEP) -> Path:
    """Write a state into `folder/round_K`, let `latest` point at it, and remove what is older than the newest few.

    Args:
        folder: The run's `checkpoints/`; it is made if it is not there.
        state: The state after a round.
        keep: How many rounds to keep.

    Returns:
        The round's folder.

    Raises:
        FederationError: It cannot be written; what was there before still is.
    """
    target = folder / f"{_PREFIX}{state.round}"
    stage = atomic.staging_path(target)
    try:
        stage.mkdir(parents=True)
        _write(stage, state)
        write_checksums(stage)
        atomic.replace_directory(stage, target)
        atomic.write_text(folder / LATEST, target.name + "\n")
    except OSError as error:
        shutil.rmtree(stage, ignore_errors=True)
        remedy = f"Free some space on the disk that holds {folder}" if disk_space.is_full(error) else f"See to {folder}"
        raise FederationError(
            f"The state after round {state.round} cannot be written: {reason(error)}. Nothing was sent without it. "
            f"{remedy}, and resume."
        ) from error
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise
    for old in states(folder)[max(1, keep) :]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def read_latest(folder: Path, report: Callable[[str], None]) -> FederationState | None:
    """Read the newest state that is whole.

    Args:
        folder: The run's `checkpoints/`.
        report: Told of each state that was passed over.

    Returns:
        The state, or `None` where there is none.

    Raises:
        FederationError: There are states and all are damaged, or a newer release wrote them.
    """
    if not folder.is_dir():
        return None
    atomic.remove_leftovers(folder)
    damaged = []
    for path in states(folder):
        try:
            return read_state(path)
        except DamagedError as error:
            damaged.append(str(error))
            report(f"The state of {path.name} is damaged and skipped: {error}")
    if damaged:
        raise FederationError(
            f"All states in {folder} are damaged. {' '.join(damaged)} Restore the folder from a backup, or start a "
            "new run."
        )
    return None


def states(folder: Path) -> list[Path]:
    """List the folders of rounds, newest first; `latest` is for people and scripts, for each folder is whole."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(_PREFIX)), reverse=True)


def read_state(path: Path) -> FederationState:
    """Read the state in a round's folder after proving it whole.

    Raises:
        DamagedError: A file is missing, truncated or altered.
        FederationError: A newer release wrote it.
    """
    verify_checksums(path)
    try:
        plain = json.loads((path / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedError(path / "state.json", "is missing or damaged") from error
    if plain["schema_version"] > SCHEMA_VERSION:
        raise FederationError(
            f"{path} was written by a newer release (format {plain['schema_version']}, this one reads up to "
            f"{SCHEMA_VERSION}). Update experiments_manager."
        )
    with np.load(path / "arrays.npz", allow_pickle=False) as stored:
        groups = {group: _read_arrays(stored, plain[group], group) for group in _GROUPS}
    best = BestRound(**plain["best"]) if plain["best"] else None
    return FederationState(plain["round"], strategy=plain["strategy"], best=best, extra=plain["extra"], **groups)


def _write(stage: Path, state: FederationState) -> None:
    groups = {group: getattr(state, group) for group in _GROUPS}
    # Names of variables may be anything, so the files are numbered; `bfloat16` and the like are written as raw bytes.
    numbered = {f"{group}-{i}": array for group, arrays in groups.items() for i, array in enumerate(arrays.values())}
    for array in numbered.values():
        if np.asarray(array).dtype.hasobject:  # NumPy would pickle it
            raise FederationError("The strategy keeps an array of objects. Expected numbers. Mend its state.")
    with (stage / "arrays.npz").open("wb") as stream:
        np.savez(stream, **numbered)
    plain = {
        "schema_version": SCHEMA_VERSION,
        "round": state.round,
        "best": vars(state.best) if state.best else None,
        "strategy": state.strategy,
        "extra": state.extra,
        **{group: _described(arrays) for group, arrays in groups.items()},
    }
    (stage / "state.json").write_text(json.dumps(plain, indent=1), encoding="utf-8")


def _described(arrays: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    return [{"name": name, "dtype": np.asarray(array).dtype.name} for name, array in arrays.items()]


def _read_arrays(stored: Any, described: list[dict[str, Any]], group: str) -> dict[str, np.ndarray]:
    arrays = {}
    for i, entry in enumerate(described):
        array, dtype = stored[f"{group}-{i}"], named_dtype(entry["dtype"])
        arrays[entry["name"]] = array if array.dtype == dtype else array.view(dtype)
    return arrays
