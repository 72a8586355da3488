"""How run folders are made, and found again."""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments_manager.common import atomic
from experiments_manager.common.jsonable import to_jsonable
from experiments_manager.common.machine import local_copies
from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.dialects import foreign_run
from experiments_manager.runs import naming
from experiments_manager.runs.errors import RunError, explain
from experiments_manager.runs.manifest import first_manifest, read_manifest
from experiments_manager.runs.run import MANIFEST, Run

_LEFT_BY_A_KILLED_PROCESS = 3600.0  # seconds after which a folder in the making is taken for abandoned


def create_run(
    working_dir: Path | str,
    session_name: str,
    hparams: Mapping[str, Any] | None = None,
    *,
    now: datetime.datetime | None = None,
    run_name: str | None = None,
) -> Run:
    """Make a new run folder with a first run.json in it.

    The folder is made beside its place and renamed into it, so a run folder without a run.json never exists. When
    several processes want the same name at once, each gets its own, by a suffix `-2`, `-3`, ….

    Args:
        working_dir: Folder of runs; made where it does not exist.
        session_name: The name of the experiment.
        hparams: The hyperparameters that the folder's name shows.
        now: The time in the name, local time by default.
        run_name: The folder's exact name, instead of one made from the three above.

    Returns:
        The run, in state `created`.

    Raises:
        RunError: The folder cannot be written, or `run_name` is taken or unsafe.
    """
    parent, hparams = Path(working_dir).expanduser().absolute(), local_copies.to_originals(dict(hparams or {}))
    if run_name is not None:
        naming.check_run_name(run_name)
    name = run_name or naming.run_name(session_name, hparams, now or datetime.datetime.now())
    stage = atomic.staging_path(parent / name)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        atomic.remove_leftovers(parent, older_than=_LEFT_BY_A_KILLED_PROCESS)
        stage.mkdir()
        atomic.write_json(stage / MANIFEST, {**first_manifest(), "hparams": to_jsonable(hparams)})
        path = _claim(stage, parent, name, exact=run_name is not None)
    except OSError as error:
        raise explain(error, "make a run folder in", parent) from error
    finally:
        if stage.exists():
            shutil.rmtree(stage, ignore_errors=True)
    return Run(path)


def make_new_folder(path: Path) -> Path:
    """Make an empty folder at `path`, or beside it with a suffix `-2`, `-3`, … where that name is taken.

    When several processes want the same name at once, each gets its own.

    Raises:
        OSError: It cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    names = naming.numbered(path.name)
    while True:
        folder = path.with_name(next(names))
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder


def find_run(working_dir: Path | str, run_name: str) -> Run | None:
    """Give the run of that exact name, or `None` where there is none yet.

    Raises:
        RunError: Something of that name is there, but it is no readable run.
    """
    naming.check_run_name(run_name)
    path = Path(working_dir).expanduser().absolute() / run_name
    return open_run(path) if os.path.lexists(path) else None


def open_run(path: Path | str) -> Run:
    """Find the run folder at `path`, which may also be its run.json or anything else inside it.

    Raises:
        RunError: There is no run, or its run.json is damaged or too new.
    """
    given = Path(path).expanduser()
    if not given.exists():
        raise RunError(f"There is no run folder {given}. {_suggestion(given)}")
    place = given.resolve()
    for folder in (place, *place.parents):
        if (folder / MANIFEST).is_file():
            read_manifest(folder / MANIFEST)
            return Run(folder)
    if foreign := foreign_run(place):
        framework, file = foreign[0].framework, foreign[1]
        raise RunError(
            f"{given} is a run of {framework}: it has no {MANIFEST}. No checkpoints of {framework} can be "
            "resumed or evaluated. Its models can be served and asked by `experiments_manager serve` and `predict`. To "
            f"train anew: experiments_manager train {shlex.quote(str(file))}"
        )
    raise RunError(f"{given} is no run folder: it has no {MANIFEST}. {_runs_below(place)}")


def _claim(stage: Path, parent: Path, name: str, *, exact: bool) -> Path:
    """Rename `stage` to the first free name; the rename fails where a folder with anything in it stands."""
    names = naming.numbered(name)
    while True:
        target = parent / next(names)
        try:
            if not os.path.lexists(target):
                stage.rename(target)
                return target
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
        if exact:
            raise RunError(
                f"There is a run {target} already. Choose another --run-name, or go on with it by --resume auto."
            )


def _suggestion(missing: Path) -> str:
    parent = missing.absolute().parent
    if not parent.is_dir():
        return f"There is no folder {parent} either. Check the path."
    names = [entry.name for entry in parent.iterdir() if (entry / MANIFEST).is_file()]
    otherwise = "Check the path; `experiments_manager runs DIR` lists runs."
    return did_you_mean(missing.name, names, otherwise, shown=f"{parent}/{{}}")


def _runs_below(folder: Path) -> str:
    if not folder.is_dir():
        return "Name a folder that `experiments_manager train` has made."
    names = sorted(entry.name for entry in folder.iterdir() if (entry / MANIFEST).is_file())
    if not names:
        return "Name a folder that `experiments_manager train` has made."
    count = "1 run; name it" if len(names) == 1 else f"{len(names)} runs; name one of them"
    return f"It holds {count}, e.g. {folder / names[-1]}."
