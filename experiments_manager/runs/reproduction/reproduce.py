"""A run trained again from its own folder: the same code, settings, seed and, as asked, packages."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments_manager.runs.errors import RunError
from experiments_manager.runs.folder import open_run
from experiments_manager.runs.reproduction.outcome import Outcome, compare_outcome
from experiments_manager.runs.run import Run
from experiments_manager.runs.run_settings import altered_files

_OF_PLACES = {"working_dir"}
"""Settings that say where a run is made, not what it comes to."""


def command_line(run: Run, python: Path, parent: Path, name: str) -> list[str]:
    """Return the command that trains a run again from the snapshot in its folder.

    Args:
        run: The run.
        python: The Python that trains it.
        parent: Folder of the new run.
        name: Its name.

    Raises:
        RunError: The run has not finished, so there is nothing to compare with; or its copy of the code was altered.
    """
    manifest = run.manifest
    if manifest.get("state") != "finished":
        raise RunError(
            f"{run.path} is {manifest.get('state')}. Expected a finished run, whose result can be compared. "
            "Go on with it first: experiments_manager resume RUN"
        )
    altered = altered_files(run)
    if altered:
        raise RunError(
            f"{', '.join(map(str, altered))}: not as it was when the run began (SHA-256 in run.json). Expected the "
            "code that the run was trained with. Restore it from a backup, or from the git commit in run.json."
        )
    values = {key: value for key, value in (manifest.get("overrides") or {}).items() if key not in _OF_PLACES}
    if manifest.get("seed") is not None:
        values["random_seed"] = manifest["seed"]
    command = [str(python), "-m", "experiments_manager", "train", str(run.settings_file)]
    for key, value in values.items():
        command += ["--set", f"{key}={value}"]
    return [*command, "--working-dir", str(parent), "--run-name", name, "--quiet"]


def train_again(
    run: Run, python: Path, parent: Path, name: str, tell: Callable[[str], None] = lambda text: None
) -> tuple[Run, Outcome]:
    """Train a run again and compare the results.

    Args:
        run: The run.
        python: The Python that trains it.
        parent: Folder of the new run.
        name: Its name.
        tell: Is told what happens.

    Returns:
        The new run, and what became of it.

    Raises:
        RunError: The run has not finished, or training it again fails.
    """
    command = command_line(run, python, parent, name)
    tell(f"Training {run.name} again in {parent / name}")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, check=False, **_quiet())
    if done.returncode != 0:
        said: list[Any] = done.stderr.strip().splitlines()
        raise RunError(f"Training {run.path} again failed with exit code {done.returncode}: {said[-1] if said else ''}")
    again = open_run(parent / name)
    return again, compare_outcome(run, again)


def _quiet() -> dict[str, Any]:
    return {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
