"""The working directory that the hooks of a settings file run in."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from experiments_manager.settings.problems import Problem, SettingsError
from experiments_manager.settings.settings import Session, Settings


def session_folder(settings: Settings, run_folder: Path) -> Path:
    """Return the working directory of the hooks in a run; the run folder itself where they stay where they are."""
    return run_folder / (settings.dialect.session_folder or "")


@contextlib.contextmanager
def working_directory(settings: Settings, folder: Path, session: Session | None = None) -> Iterator[None]:
    """Inside, hooks that do not stay where the command was given find a folder as working directory.

    Args:
        settings: Those whose dialect has no `session_folder` change nothing.
        folder: Is made if it is missing.
        session: What such hooks may read of the run from their settings.
    """
    if settings.dialect.session_folder is None:
        yield
        return
    before = Path.cwd()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    try:
        with settings.during(session or Session()):
            yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def as_in_run_folder(settings: Settings) -> Iterator[None]:
    """Inside, such hooks find a folder as deep as in a run, and nothing of it stays.

    Raises:
        SettingsError: The folder cannot be made.
    """
    if settings.dialect.session_folder is None:
        yield
        return
    parent = Path(settings.working_dir).expanduser().absolute()
    made = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    try:
        parent.mkdir(parents=True, exist_ok=True)
        run_folder = Path(tempfile.mkdtemp(prefix=".check_", dir=parent))
    except OSError as error:
        text = f"no folder can be made there: {error.strerror}. Expected a folder that can be written to. Name another."
        raise SettingsError([Problem(settings.location("working_dir"), 0, "working_dir", text)]) from error
    try:
        with working_directory(settings, session_folder(settings, run_folder)):
            yield
    finally:
        shutil.rmtree(run_folder, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):  # another process has begun to use it
                folder.rmdir()
