"""What is to be served: from a run folder, or any folder of versions, to a base path and a name; and waiting for it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

from experiments_manager.common.console import command_line
from experiments_manager.export.versions import list_versions
from experiments_manager.protocol.errors import ServerStartError
from experiments_manager.runs import Run, RunError, open_run
from experiments_manager.runs.locking import LOCK_FILE, is_held
from experiments_manager.runs.serving_setup import SETUP_FILE, ServingSetup, read_serving_setup

GRACE = 10.0
"""Seconds for which a run may be without the process that trains it, as while a training is started again."""
_POLL = 0.2


@dataclasses.dataclass(frozen=True)
class ServingTarget:
    """What is to be served."""

    base_path: Path
    """Folder of the versions; absolute."""
    model_name: str
    run: Run | None = None
    """The run that exports these versions, where it is one."""
    setup: ServingSetup | None = None
    """What the run folder says of ports."""


def find_target(path: Path | str, model_name: str | None = None) -> ServingTarget:
    """Find out what a path means.

    Args:
        path: A run folder, its `exported_models`, or any folder whose subfolders are versions.
        model_name: Name to serve under; by default the run's, or the name of the folder.

    Returns:
        The target; its folder may still be empty where a run is to fill it.

    Raises:
        ServerStartError: There is nothing to serve at this path.
        RunError: It is a run folder, but a damaged one.
    """
    given = Path(path).expanduser()
    if not given.exists():
        try:
            open_run(given)
        except RunError as error:
            raise ServerStartError(f"{error} If the run was moved, give its present path.") from error
    place = given.resolve()
    if run := _run_of(place):
        setup = read_serving_setup(run.path) or _setup_to_come(run)
        base_path = run.path / setup.model_base_path if setup else run.exports_dir
        return ServingTarget(base_path, model_name or _name_of(run, setup), run, setup)
    if folder := _foreign_run_of(place):
        setup = read_serving_setup(folder)
        return ServingTarget(folder / setup.model_base_path, model_name or setup.model_name, None, setup)
    if (place / "saved_model.pb").is_file():
        raise ServerStartError(
            f"{given} is a SavedModel itself. Expected a folder of versions: folders with numbers for names, each a "
            f"SavedModel, such as {place.name}/1/saved_model.pb. Name its parent, or move it into such a folder."
        )
    if not versions_in(place):
        raise ServerStartError(
            f"No exported model in {given}, and no running training that will export one. {_hint(given)}"
        )
    return ServingTarget(place, model_name or place.name or "default")


def _run_of(place: Path) -> Run | None:
    """Return the run whose folder, or whose folder of versions, this is."""
    for folder in (place, place.parent, place.parent.parent):
        if (folder / "run.json").is_file() and (place == folder or folder / "exported_models" in (place, place.parent)):
            return open_run(folder)
    return None


def _foreign_run_of(place: Path) -> Path | None:
    """Return the folder of a run of another framework whose folder, or whose folder of versions, this is."""
    folder = place.parent if place.name == "exported_models" else place
    return folder if (folder / SETUP_FILE).is_file() and versions_in(folder / "exported_models") else None


def _setup_to_come(run: Run) -> ServingSetup | None:
    """Return what a run that has just begun will say of its service, as far as its settings are known."""
    settings = run.manifest.get("settings")
    if not settings:
        return None
    file = run.manifest.get("model_file") or run.manifest.get("settings_file")
    host, ports = settings.get("server_host", "localhost"), (settings.get("grpc_port"), settings.get("rest_port"))
    if file is None or None in ports:
        return None
    return ServingSetup(host, *ports, Path(file).stem)


def _name_of(run: Run, setup: ServingSetup | None) -> str:
    if setup is not None:
        return setup.model_name
    file = run.manifest.get("settings_file")
    return Path(file).stem if file else run.name


def _hint(given: Path) -> str:
    try:
        open_run(given)
    except RunError as error:
        return f"{error} A folder whose subfolders have numbers for names will do, too."
    return "Expected a run folder, its `exported_models`, or a folder whose subfolders have numbers for names."


def versions_in(base_path: Path) -> list[int]:
    """List the versions in a folder, oldest first."""
    try:
        return sorted(list_versions(base_path))
    except OSError:
        return []


def wait_for_version(
    target: ServingTarget, tell: Callable[[str], None], should_stop: Callable[[], bool] = lambda: False
) -> int | None:
    """Wait until there is a version to serve.

    Args:
        target: What is to be served.
        tell: Called with one sentence if there is something to wait for.
        should_stop: Asked all the time; a true answer ends the waiting.

    Returns:
        The newest version; `None` if it was told to stop.

    Raises:
        ServerStartError: The run has ended without a version, so none will come.
    """
    told, alone_since = False, None
    while not should_stop():
        state = _state(target)
        found = versions_in(target.base_path)
        if found:
            return found[-1]
        now = time.monotonic()
        alone_since = None if state == "at work" else alone_since or now
        ended = state not in ("at work", "on its own")
        if ended or (alone_since is not None and now - alone_since > GRACE):
            raise ServerStartError(_none_coming(target, state))
        if not told:
            tell(f"Waiting for the first version in {target.base_path}: training has not exported one yet.")
            told = True
        time.sleep(_POLL)
    return None


def is_at_work(target: ServingTarget) -> bool:
    """Return whether a process trains the run whose versions these are."""
    return _state(target) == "at work"


def _state(target: ServingTarget) -> str:
    """`at work`, `on its own` (not ended, but no process trains it), `without export`, or how the run ended."""
    if target.run is None:
        return "without a run"
    try:
        state = target.run.manifest["state"]
    except RunError as error:
        raise ServerStartError(
            f"The run folder was removed: {error} If it was moved, give its present path."
        ) from error
    if (target.run.manifest.get("settings") or {}).get("export") is False:
        return "without export"
    if state not in ("created", "running"):
        return state
    return "at work" if is_held(target.run.path / LOCK_FILE) else "on its own"


def _none_coming(target: ServingTarget, state: str) -> str:
    text = f"No exported model in {target.base_path}, and none will come: "
    if target.run is None:
        return text + "no run writes there. Name a run folder, or a folder of versions."
    if state == "without export":
        return text + "the run's settings say `export = False`. Train again with `export = True`."
    if state == "finished":
        return text + "the run is finished. Train again with `export = True`, and check its messages on the export."
    told = "no process trains the run" if state == "on its own" else f"the run is {state}"
    return f"{text}{told}. Go on with it: {command_line('resume', str(target.run.path))}"
