"""The run folder: its places, how it is made and how it is found again.

```
<working_dir>/<session_name>_<hparams>_<YYYY-MM-DD--HH-MM-SS>/
  run.json  git.diff  metrics.csv  settings/  checkpoints/  exported_models/  logs/
```

Nothing in it depends on where it stands: it may be moved, also to another machine.
"""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import errno
import itertools
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments_manager.runs import atomic, naming
from experiments_manager.runs.errors import RunError, explain
from experiments_manager.runs.jsonable import to_jsonable
from experiments_manager.runs.manifest import first_manifest, read_manifest, update_manifest

MANIFEST = "run.json"
SETTINGS = "settings"
_LEFT_BY_A_KILLED_PROCESS = 3600.0  # seconds after which a folder in the making is taken for abandoned


@dataclasses.dataclass(frozen=True)
class Run:
    """One execution of an experiment, and the folder that holds everything about it."""

    path: Path
    """Absolute."""

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def manifest_file(self) -> Path:
        """`run.json`."""
        return self.path / MANIFEST

    @property
    def settings_dir(self) -> Path:
        """The snapshot of the user's code."""
        return self.path / SETTINGS

    @property
    def checkpoints_dir(self) -> Path:
        """Complete training states; made by who writes there."""
        return self.path / "checkpoints"

    @property
    def exports_dir(self) -> Path:
        """Servable versions; made by who writes there."""
        return self.path / "exported_models"

    @property
    def logs_dir(self) -> Path:
        """TensorBoard's event files; made by who writes there."""
        return self.path / "logs"

    @property
    def metrics_csv(self) -> Path:
        """One row an epoch."""
        return self.path / "metrics.csv"

    @property
    def git_diff(self) -> Path:
        """The uncommitted diff; absent where there is none."""
        return self.path / "git.diff"

    @property
    def manifest(self) -> dict[str, Any]:
        """What run.json says now, read afresh at each call.

        Raises:
            RunError: It cannot be read.
        """
        return read_manifest(self.manifest_file)

    @property
    def is_started(self) -> bool:
        """Whether the run holds its snapshot, so that it can be resumed; false between `create_run` and `start`."""
        return self.manifest.get("settings_file") is not None

    @property
    def settings_file(self) -> Path:
        """The settings module in the snapshot.

        Raises:
            RunError: The run never started.
        """
        relative = self.manifest.get("settings_file")
        if relative is None:
            raise RunError(f"{self.path} was made but never started. Start a new run from the original settings file.")
        return self.path / relative

    @property
    def model_file(self) -> Path | None:
        """The model file in the snapshot, where the experiment has one."""
        relative = self.manifest.get("model_file")
        return None if relative is None else self.path / relative

    def update(self, **fields: Any) -> None:
        """Merge fields into run.json in one atomic step; may be called from any thread.

        Raises:
            RunError: It could not be written; run.json is what it was before.
        """
        update_manifest(self.manifest_file, fields)

    def start(
        self,
        *,
        settings_file: Path | str,
        model_file: Path | str | None = None,
        search_roots: Iterable[Path | str] = (),
        command: Sequence[str] = (),
        overrides: Mapping[str, Any] | None = None,
        hparams: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        seed: int | None = None,
        devices: Sequence[str] = (),
        **fields: Any,
    ) -> None:
        """Write the snapshot, where the code comes from, and a run.json that says `running`.

        Hold the run's lock. May be called again after a process was killed in the midst of it.

        Args:
            settings_file: The user's settings module.
            model_file: The user's model file, where there is one.
            search_roots: Folders to look for local modules in, besides those of the two files and the working
                directory.
            command: The command line.
            overrides: Settings overridden for this run, by name.
            hparams: The values in force.
            settings: All settings in force, by name.
            seed: The random seed.
            devices: Names of the devices trained on.
            **fields: Further fields of run.json.

        Raises:
            RunError: A file could not be read or written.
        """
        from experiments_manager.runs.provenance import describe_git, describe_host, installed_packages
        from experiments_manager.runs.snapshot import take_snapshot

        start = _now()
        snapshot = take_snapshot(self.settings_dir, settings_file, model_file, search_roots)
        git = describe_git(Path(settings_file), snapshot.sources)
        if git is not None and git.diff:
            try:
                atomic.write_bytes(self.git_diff, git.diff)
            except OSError as error:
                raise explain(error, "write", self.git_diff) from error
        self.update(
            state="running",
            error=None,
            command=list(command),
            overrides=overrides or {},
            hparams=hparams or {},
            settings=settings or {},
            seed=seed,
            settings_file=f"{SETTINGS}/{snapshot.settings_file}",
            model_file=None if snapshot.model_file is None else f"{SETTINGS}/{snapshot.model_file}",
            files=[f"{SETTINGS}/{file}" for file in snapshot.files],
            git=None if git is None else git.as_fields(),
            packages=installed_packages(),
            host=describe_host(),
            devices=list(devices),
            start=start,
            **fields,
        )

    def mark_resumed(self, **fields: Any) -> None:
        """Say in run.json that the run goes on: `running` again, without error and end.

        Args:
            **fields: Further fields of run.json, e.g. the devices trained on now.

        Raises:
            RunError: It could not be written.
        """
        resumed = [*self.manifest.get("resumed", []), _now()]
        self.update(**{"state": "running", "error": None, "end": None, "resumed": resumed, **fields})

    def finish(self, state: str, **fields: Any) -> None:
        """Say in run.json how the run ended, and when.

        Args:
            state: `finished`, `failed` or `interrupted`.
            **fields: Further fields of run.json. Without `seconds`, the time since start or last resume is written.

        Raises:
            RunError: The state is none of these, or run.json could not be written.
        """
        if state not in ("finished", "failed", "interrupted"):
            raise RunError(f"A run cannot end as {state!r}. Expected finished, failed or interrupted.")
        end = _now()
        if "seconds" not in fields:
            fields["seconds"] = _seconds_since_start(self.manifest, end)
        self.update(**{"state": state, "end": end, **fields})


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
    parent = Path(working_dir).expanduser().absolute()
    if run_name is not None:
        naming.check_run_name(run_name)
    name = run_name or naming.run_name(session_name, hparams or {}, now or datetime.datetime.now())
    stage = atomic.staging_path(parent / name)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        atomic.remove_leftovers(parent, older_than=_LEFT_BY_A_KILLED_PROCESS)
        stage.mkdir()
        atomic.write_json(stage / MANIFEST, {**first_manifest(), "hparams": to_jsonable(hparams or {})})
        path = _claim(stage, parent, name, exact=run_name is not None)
    except OSError as error:
        raise explain(error, "make a run folder in", parent) from error
    finally:
        if stage.exists():
            shutil.rmtree(stage, ignore_errors=True)
    return Run(path)


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
    raise RunError(f"{given} is no run folder: it has no {MANIFEST}. {_runs_below(place)}")


def _claim(stage: Path, parent: Path, name: str, *, exact: bool) -> Path:
    """Rename `stage` to the first free name; the rename fails where a folder with anything in it stands."""
    for number in itertools.count(1):
        target = parent / (name if number == 1 else f"{name}-{number}")
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
    raise AssertionError  # not reached: the count has no end


def _suggestion(missing: Path) -> str:
    parent = missing.absolute().parent
    if not parent.is_dir():
        return f"There is no folder {parent} either. Check the path."
    names = [entry.name for entry in parent.iterdir() if (entry / MANIFEST).is_file()]
    near = difflib.get_close_matches(missing.name, names, n=1)
    return f"Did you mean {parent / near[0]}?" if near else "Check the path; `experiments_manager runs DIR` lists runs."


def _runs_below(folder: Path) -> str:
    if not folder.is_dir():
        return "Name a folder that `experiments_manager train` has made."
    names = sorted(entry.name for entry in folder.iterdir() if (entry / MANIFEST).is_file())
    if not names:
        return "Name a folder that `experiments_manager train` has made."
    return f"It holds {len(names)} runs; name one of them, e.g. {folder / names[-1]}."


def _seconds_since_start(manifest: dict[str, Any], end: str) -> float | None:
    begin = (manifest.get("resumed") or [manifest.get("start")])[-1]
    if begin is None:
        return None
    return (datetime.datetime.fromisoformat(end) - datetime.datetime.fromisoformat(begin)).total_seconds()


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")
