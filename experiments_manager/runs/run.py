"""One run: the places in its folder, and what it says about itself from start to end.

```
<working_dir>/<session_name>_<hparams>_<YYYY-MM-DD--HH-MM-SS>/
  run.json  git.diff  metrics.csv  settings/  checkpoints/  exported_models/  logs/
```

Nothing in it depends on where it stands: it may be moved, also to another machine.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments_manager.common import atomic
from experiments_manager.common.machine.disk_space import use_reserve
from experiments_manager.runs.errors import RunError, explain
from experiments_manager.runs.manifest import read_manifest, update_manifest

if TYPE_CHECKING:
    from experiments_manager.runs.snapshot import Snapshot

MANIFEST = "run.json"
SETTINGS = "settings"
CLIENTS = "clients"
EPOCH, ROUND = "epoch", "round"
"""What an epoch is called: elsewhere, and in a federation."""
RESUMED_FIELDS = ("state", "error", "end", "resumed")
"""What `Run.mark_resumed` changes."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One execution of an experiment, and the folder that holds everything about it."""

    path: Path
    """Absolute."""

    @property
    def name(self) -> str:
        """Name of the run: that of its folder."""
        return self.path.name

    @property
    def manifest_file(self) -> Path:
        """The manifest, `run.json`."""
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
        """`metrics.csv`: one row an epoch."""
        return self.path / "metrics.csv"

    @property
    def clients_dir(self) -> Path:
        """Runs of the clients of a federation, by their numbers."""
        return self.path / CLIENTS

    @property
    def federation(self) -> Run | None:
        """The run of the federation that this is a client's run of, where it lies in that one's folder."""
        above = self.path.parent.parent
        return Run(above) if self.path.parent.name == CLIENTS and (above / MANIFEST).is_file() else None

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
    def unit(self) -> str:
        """What its epochs are called: `round` in a federation, else `epoch`.

        Raises:
            RunError: As for `manifest`.
        """
        return unit_of(self.manifest)

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

    def moved_to(self, path: Path) -> None:
        """Let this object, and so all who hold it, stand for the same folder in another place."""
        object.__setattr__(self, "path", path)

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
            RunError: A file could not be read or written, or the run has started before.
        """
        from experiments_manager.runs.provenance import describe_git, describe_host, installed_packages
        from experiments_manager.runs.snapshot import take_snapshot

        if self.is_started:
            raise RunError(f"{self.path} has started before. Resume it, or make a new run.")
        start = _now()
        snapshot = take_snapshot(self.settings_dir, settings_file, model_file, search_roots)
        git = describe_git(Path(settings_file), snapshot.sources)
        self._write_git_diff(git.diff if git is not None else b"")
        self.update(
            state="running",
            error=None,
            command=list(command),
            overrides=overrides or {},
            hparams=hparams or {},
            settings=settings or {},
            seed=seed,
            **_snapshot_fields(snapshot),
            origin=_origin(settings_file, model_file),
            git=None if git is None else git.as_fields(),
            packages=installed_packages(),
            host=describe_host(),
            devices=list(devices),
            start=start,
            **fields,
        )

    def prepare(
        self,
        *,
        settings_file: Path | str,
        model_file: Path | str | None = None,
        command: Sequence[str] = (),
        hparams: Mapping[str, Any] | None = None,
    ) -> None:
        """Take the snapshot for a run that begins later, as a job; it begins as one that is resumed.

        Raises:
            RunError: A file could not be read or written, or the run has started before.
        """
        from experiments_manager.runs.provenance import describe_git
        from experiments_manager.runs.snapshot import take_snapshot

        if self.is_started:
            raise RunError(f"{self.path} has started before. Resume it, or make a new run.")
        snapshot = take_snapshot(self.settings_dir, settings_file, model_file)
        git = describe_git(Path(settings_file), snapshot.sources)
        self._write_git_diff(git.diff if git is not None else b"")
        self.update(
            command=list(command),
            hparams=hparams or {},
            **_snapshot_fields(snapshot),
            origin=_origin(settings_file, model_file),
            git=None if git is None else git.as_fields(),
        )

    def _write_git_diff(self, diff: bytes) -> None:
        try:
            self.git_diff.unlink(missing_ok=True)  # left by a start that was killed
            if diff:
                atomic.write_bytes(self.git_diff, diff)
        except OSError as error:
            raise explain(error, "write", self.git_diff) from error

    def mark_resumed(self, **fields: Any) -> None:
        """Say in run.json that the run goes on: `running` again, without error and end.

        Args:
            **fields: Further fields of run.json, e.g. the devices trained on now.

        Raises:
            RunError: It could not be written.
        """
        manifest = self.manifest
        if manifest.get("start") is None:  # prepared for later, and that is now
            from experiments_manager.runs.provenance import describe_host, installed_packages

            first = {"start": _now(), "host": describe_host(), "packages": installed_packages()}
            self.update(**{"state": "running", "error": None, "end": None, **first, **fields})
            return
        resumed = [*manifest.get("resumed", []), _now()]
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
        fields = {"state": state, "end": end, **fields}
        try:
            self.update(**fields)
        except RunError:
            if not use_reserve(self.path):
                raise
            self.update(**fields)


def unit_of(manifest: Mapping[str, Any]) -> str:
    """Return what the epochs of a run are called, by its run.json."""
    return ROUND if manifest.get("federation") else EPOCH


def _snapshot_fields(snapshot: Snapshot) -> dict[str, Any]:
    """Return what run.json says of the snapshot: its files, relative to the run folder."""
    return {
        "settings_file": f"{SETTINGS}/{snapshot.settings_file}",
        "model_file": None if snapshot.model_file is None else f"{SETTINGS}/{snapshot.model_file}",
        "files": [f"{SETTINGS}/{file}" for file in snapshot.files],
        "sha256": {f"{SETTINGS}/{file}": sha for file, sha in zip(snapshot.files, snapshot.sha256, strict=True)},
    }


def _origin(settings_file: Path | str, model_file: Path | str | None) -> dict[str, str | None]:
    """Return where the files were copied from, to tell a resume on the same machine that they have changed."""
    places = {"settings_file": settings_file, "model_file": model_file}
    return {name: None if file is None else str(Path(file).absolute()) for name, file in places.items()}


def _seconds_since_start(manifest: dict[str, Any], end: str) -> float | None:
    begin = (manifest.get("resumed") or [manifest.get("start")])[-1]
    if begin is None:
        return None
    return (datetime.datetime.fromisoformat(end) - datetime.datetime.fromisoformat(begin)).total_seconds()


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")
