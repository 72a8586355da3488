"""run.json: what a run says about itself, valid at every moment of it.

| key | holds |
| --- | --- |
| `schema_version` | `SCHEMA_VERSION` of the tool that wrote the file |
| `tool_version` | the version of experiments_manager that wrote it first |
| `state` | `created` (nothing has run yet), `running`, `finished`, `failed` or `interrupted` |
| `error` | `{"type", "text", "place"}` of what made the run fail, or null |
| `command`, `overrides`, `hparams`, `settings`, `seed` | what was asked for |
| `settings_file`, `model_file` | paths relative to the run folder, the latter may be null |
| `origin` | `{"settings_file", "model_file"}`: where these were copied from |
| `files` | every file of the snapshot, relative to the run folder |
| `git` | `{"commit", "dirty", "branch", "untracked"}`, or null outside a repository |
| `packages`, `host`, `devices` | where it ran: versions by name; `{"name", "system", "python", "cpus"}`; a list |
| `start`, `end`, `resumed` | ISO 8601 with zone; `resumed` is a list of times |
| `seconds`, `epochs`, `global_step`, `metrics` | how far it came; last values of the metrics by name |
| `best` | `{"epoch", "step", "value", "name"}` of the watched value, or null |
| `federation` | of a federation `{"kind", "clients", "strategy"}`; of one of its clients `{"kind", "proc_id", "of"}` |
| `data_position`, `exactness` | how a resume finds the place in the data; `{"exact", "reasons"}` of resuming at all |
| `checkpoint`, `checkpoint_problem` | the newest checkpoint, or null; why the last one at the end was not written |
| `exported_model`, `last_version`, `mlflow` | see the rooms that write them |

JSON has no NaN and no infinities: these stand in the file as the strings `"NaN"`, `"Infinity"` and `"-Infinity"`.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from experiments_manager.common import atomic
from experiments_manager.common.jsonable import to_jsonable
from experiments_manager.common.machine import local_copies
from experiments_manager.runs.errors import RunError, explain

SCHEMA_VERSION = 1
STATES = ("created", "running", "finished", "failed", "interrupted")

_KINDS: dict[str, tuple[type, ...]] = {
    "state": (str,),
    "command": (list,),
    "overrides": (dict,),
    "hparams": (dict,),
    "settings": (dict,),
    "settings_file": (str, type(None)),
    "model_file": (str, type(None)),
    "origin": (dict,),
    "files": (list,),
    "sha256": (dict,),
    "resumed": (list,),
    "epochs": (int,),
    "best": (dict, type(None)),
    "metrics": (dict,),
}
"""What must be of these kinds where it is there at all: others rely on it."""

# One lock for all manifests of the process: an update takes a millisecond or two, and two `Run` objects may well stand
# for the same folder. Other processes are kept away by the run's own lock.
_updating = threading.Lock()


def first_manifest() -> dict[str, Any]:
    """Give the content of the run.json of a run that has not started."""
    from experiments_manager.common.version import __version__

    return {
        "schema_version": SCHEMA_VERSION,
        "tool_version": __version__,
        "state": "created",
        "error": None,
        "command": [],
        "overrides": {},
        "hparams": {},
        "settings": {},
        "seed": None,
        "settings_file": None,
        "model_file": None,
        "origin": {},
        "files": [],
        "sha256": {},
        "git": None,
        "packages": {},
        "host": {},
        "devices": [],
        "data_position": None,
        "exactness": None,
        "start": None,
        "resumed": [],
        "end": None,
        "seconds": None,
        "epochs": 0,
        "global_step": 0,
        "best": None,
        "metrics": {},
        "exported_model": None,
        "last_version": None,
    }


def read_manifest(file: Path) -> dict[str, Any]:
    """Read a run.json.

    Raises:
        RunError: It is missing, damaged, not one of ours, or written by a newer version of the tool.
    """
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{file.parent} is no run folder: it has no {file.name}. Name a folder that has one.") from error
    except OSError as error:
        raise RunError(f"Cannot read {file}: {error.strerror}. Check its permissions and its disk.") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(file, f"Expected valid JSON, got: {error}") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("schema_version"), int):
        raise RunError(
            f"{file} is not the manifest of a run. Expected a schema_version in it, got none. "
            "Name a folder that `experiments_manager train` has made."
        )
    if manifest["schema_version"] > SCHEMA_VERSION:
        raise RunError(_too_new(file, manifest))
    for name, kinds in _KINDS.items():
        if name in manifest and not isinstance(manifest[name], kinds):
            expected = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
            raise _damaged(file, f"Expected `{name}` to be {expected}, got {manifest[name]!r}")
    return manifest


def update_manifest(file: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """Merge `fields` into a run.json, key by key, in one atomic step.

    Args:
        file: The run.json.
        fields: New values. A value replaces the former one as a whole, also when both are dictionaries.

    Returns:
        The whole new content.

    Raises:
        RunError: It could not be read or written; the file is what it was before.
    """
    with _updating:
        fields = local_copies.to_originals(to_jsonable(fields))
        manifest = {**read_manifest(file), **fields, "schema_version": SCHEMA_VERSION}
        try:
            atomic.write_json(file, manifest)
        except OSError as error:
            raise explain(error, "write", file) from error
    return manifest


def _damaged(file: Path, what: str) -> RunError:
    return RunError(f"{file} is damaged. {what}. Restore the file from a copy of the run.")


def _too_new(file: Path, manifest: dict[str, Any]) -> str:
    version = manifest.get("tool_version")
    needed = f"release {version} or later" if version else "a later release"
    return (
        f"{file} was written by a newer experiments_manager. Expected schema_version up to {SCHEMA_VERSION}, got "
        f"{manifest['schema_version']}. Install {needed} of experiments_manager."
    )
