"""The settings of a run, from the snapshot of the user's code in its folder."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments_manager.runs.errors import RunError
from experiments_manager.runs.run import CLIENTS, Run
from experiments_manager.runs.snapshot import altered_copies, changed_files
from experiments_manager.settings import Settings, load_settings
from experiments_manager.settings.overrides import HPARAMS

logger = logging.getLogger(__name__)


def load_run_settings(run: Run, overrides: Mapping[str, Any] | Sequence[str] = ()) -> Settings:
    """Load the settings of a run from its own snapshot, with the overrides it was started with and further ones.

    Args:
        run: The run.
        overrides: Further settings to change, as for `load_settings`.

    Raises:
        RunError: The run never started, or its manifest cannot be read.
        SettingsError: The settings cannot be used.
    """
    place = {"model_file_search": run.settings_dir}
    known = dict(run.manifest.get("overrides") or {})
    merged = known
    if overrides:  # loaded once more for their types
        further = _with_model_file(known, overrides)
        merged = known | load_settings(run.settings_file, further, hparams=_entries(known), **place).overrides
    values = {name: value for name, value in merged.items() if not name.startswith(HPARAMS)}
    return load_settings(run.settings_file, values, hparams=_entries(merged), **place)


def weights_of(run: Run) -> tuple[Run, dict[str, Any]]:
    """Return the run that holds the weights of a run, and settings to override when these are evaluated.

    The client of a federation has the weights of the federation, which are evaluated on its own data.

    Raises:
        RunError: Its folder stands alone.
    """
    number = client_number(run)
    if number is None or run.checkpoints_dir.is_dir():
        return run, {}
    if run.federation is None:
        raise RunError(
            f"{run.path} is the run of client {number}, whose weights are those of its federation. "
            f"Expected it in the folder `{CLIENTS}` of that run. Name {CLIENTS}/{number} in the folder of the run."
        )
    return run.federation, {f"{HPARAMS}procID": number}


def client_number(run: Run) -> int | None:
    """Return the number of the client that a run is of; `None` where it is no client's."""
    told = run.manifest.get("federation") or {}
    return told.get("proc_id") if told.get("kind") == "client" else None


def refuse_client_run(run: Run) -> None:
    """Raise `RunError` for the run of a client, which cannot be resumed by itself."""
    number = client_number(run)
    if number is None:
        return
    how = (
        "on its server"
        if run.federation is None
        else f"experiments_manager resume {shlex.quote(str(run.federation.path))}"
    )
    raise RunError(
        f"{run.path} is the run of client {number} of a federation. Expected the run of the federation, which goes on "
        f"with all its clients. Resume that: {how}"
    )


def _with_model_file(
    known: Mapping[str, Any], overrides: Mapping[str, Any] | Sequence[str]
) -> Mapping[str, Any] | Sequence[str]:
    """Add the model file that the run began with: that of the settings file need not be in the snapshot."""
    if "model_file" not in known:
        return overrides
    if isinstance(overrides, Mapping):
        return {"model_file": known["model_file"], **overrides}
    return [f"model_file={known['model_file']}", *([overrides] if isinstance(overrides, str) else overrides)]


def _entries(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of `hparams` among overrides: the run began with them, so their keys and types are right."""
    return {name.removeprefix(HPARAMS): value for name, value in overrides.items() if name.startswith(HPARAMS)}


def altered_files(run: Run) -> list[Path]:
    """Return the files of the run's own copy of the code that are not what they were when it began.

    A run of an earlier release, which noted no checksums, has none.
    """
    return altered_copies(run.path, run.manifest.get("sha256") or {})


def warn_altered_files(run: Run) -> None:
    """Warn of files in the run's own copy of the code that are not what they were when it began."""
    altered = altered_files(run)
    if altered:
        logger.warning(
            "%s: not as it was when the run began (SHA-256 in run.json). What follows is of the code as it is now. To "
            "get back what was trained, restore the copy.",
            ", ".join(map(str, altered)),
        )


def warn_changed_files(run: Run, origin: Mapping[str, Path | str | None] | None = None) -> None:
    """Warn of files of the user's that have changed since the run was started, for the run goes on with its copies.

    Of copies that were altered in the run's folder too.

    Args:
        run: The run.
        origin: `settings_file` and `model_file`; by default those that the run was started from.
    """
    warn_altered_files(run)
    origin = origin or run.manifest.get("origin") or {}
    settings_file = origin.get("settings_file")
    if not settings_file:
        return
    changed = changed_files(run.settings_dir, settings_file, origin.get("model_file"))
    if changed:
        verb = "has" if len(changed) == 1 else "have"
        logger.warning(
            "%s %s changed since the run was started, which goes on with its copies in %s. To use the files as they "
            "are now, start a new run (or one of another --run-name): experiments_manager train %s",
            ", ".join(map(str, changed)),
            verb,
            run.settings_dir,
            shlex.quote(str(settings_file)),
        )
