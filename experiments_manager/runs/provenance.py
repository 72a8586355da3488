"""Where a run comes from: the state of the user's repository, the installed packages, the machine.

Nothing here raises and nothing here takes long: a run must start with no git installed, outside a repository, or on a
network drive where git does not answer in time. What could not be found out is `None` or left out.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments_manager.common.machine.processes import usable_processors

logger = logging.getLogger(__name__)

_NOT_IN_NAMES = re.compile(r"[-_.]+")  # what the names of packages are equal without (PEP 503)

LARGEST_DIFF = 10 * 1024 * 1024
"""Bytes of git.diff; what goes beyond is cut, and the last line of the file says so."""
_TIMEOUT = 10.0  # seconds for each call of git
# A repository is data, it must not make git run programs of its own (file system monitor, external diff).
# Nor may the user's taste in diffs make one that `git apply` does not understand.
_CONFIGURATION = (
    "core.fsmonitor=false",
    "core.quotePath=false",
    "diff.noprefix=false",
    "diff.mnemonicPrefix=false",
    "diff.relative=false",
    "diff.submodule=short",
)
_GIT = ("git", *(word for setting in _CONFIGURATION for word in ("-c", setting)))
_PLAIN_DIFF = ("--no-ext-diff", "--no-textconv", "--no-color")
_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


@dataclasses.dataclass(frozen=True)
class GitState:
    """The repository that holds the settings file, as it was when the run started."""

    commit: str | None
    """The full hash, `None` in a repository without commits."""
    branch: str | None
    """`None` when no branch is checked out."""
    dirty: bool
    """Whether a tracked file differs from the commit, or a file of the snapshot is not tracked."""
    untracked: tuple[str, ...]
    """Files of the snapshot that git does not track; they are no part of the diff, for the snapshot has them."""
    diff: bytes
    """`git diff HEAD` of the whole repository, staged and unstaged changes; binary files are only named."""

    def as_fields(self) -> dict[str, Any]:
        """Give what stands in run.json."""
        return {
            "commit": self.commit,
            "dirty": self.dirty,
            "branch": self.branch,
            "untracked": list(self.untracked),
        }


def describe_git(settings_file: Path, sources: Sequence[Path] = ()) -> GitState | None:
    """Describe the repository that holds the settings file.

    Args:
        settings_file: The user's settings module.
        sources: The files that the snapshot was taken from, to tell which of them git does not track.

    Returns:
        `None` outside a repository, without git, or when git does not answer in time.
    """
    folder = settings_file.absolute().parent
    status = _git(folder, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    if status is None:
        return None
    lines = status.decode(errors="replace").splitlines()
    headers = {line.split(" ")[1]: line.split(" ", 2)[2] for line in lines if line.startswith("# branch.")}
    commit = _unless(headers.get("branch.oid"), "(initial)")
    changed = any(not line.startswith("#") for line in lines)
    diff = _git(folder, "diff", *_PLAIN_DIFF, commit or _EMPTY_TREE, "--") if changed else b""
    if diff is None:
        logger.warning("The uncommitted changes could not be read from git; the run is recorded without git.diff.")
    untracked = _untracked(folder, [settings_file.absolute(), *sources])
    return GitState(
        commit=commit,
        branch=_unless(headers.get("branch.head"), "(detached)"),
        dirty=changed or bool(untracked),
        untracked=untracked,
        diff=_limited(diff or b""),
    )


def describe_host() -> dict[str, Any]:
    """Give `{"name", "system", "python", "cpus"}`; `cpus` counts those that this process may use."""
    system = platform.uname()
    return {
        "name": socket.gethostname(),
        "system": f"{system.system} {system.release} {system.machine}",
        "python": platform.python_version(),
        "cpus": usable_processors(),
    }


def installed_packages() -> dict[str, str]:
    """Give name and version of every installed distribution, sorted by name.

    Read from the names of the folders that installers write (`<name>-<version>.dist-info`), as `importlib.metadata`
    finds them; opening the metadata of each would take twenty times as long.
    """
    packages: dict[str, str] = {}
    for folder in sys.path:
        try:
            entries = os.listdir(folder or ".")  # noqa: PTH208  Path objects for thousands of entries cost time
        except OSError:
            continue
        for entry in entries:
            if entry.endswith((".dist-info", ".egg-info")):
                name, _, version = entry.rpartition(".")[0].partition("-")
                version = version.split("-py")[0] or _noted_version(Path(folder, entry))
                packages.setdefault(_NOT_IN_NAMES.sub("-", name).lower(), version)
    return dict(sorted(packages.items()))


def _noted_version(folder: Path) -> str:
    """Read the version where the folder's name does not tell it: a package in development."""
    import importlib.metadata

    try:
        metadata = importlib.metadata.Distribution.at(folder).metadata
    except (OSError, ValueError):
        return "unknown"
    return (metadata and metadata.get("Version")) or "unknown"


def _git(folder: Path, *arguments: str) -> bytes | None:
    # Inside a git hook GIT_DIR and its like point elsewhere; and status must not take the lock of the user's index.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment.update(GIT_OPTIONAL_LOCKS="0", LC_ALL="C")
    try:
        answer = subprocess.run(
            [*_GIT, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        logger.warning("git %s took more than %g s; the run is recorded without what it tells.", arguments[0], _TIMEOUT)
        return None
    except (OSError, subprocess.SubprocessError) as error:
        logger.debug("git could not be asked: %s", error)
        return None
    if answer.returncode != 0:
        logger.debug("git %s: %s", arguments[0], answer.stderr.decode(errors="replace").strip())
        return None
    return answer.stdout


def _untracked(folder: Path, files: Sequence[Path]) -> tuple[str, ...]:
    root = (_git(folder, "rev-parse", "--show-toplevel") or b"").decode(errors="surrogateescape").rstrip("\n")
    if not root:
        return ()
    inside = sorted({str(file.resolve()) for file in files if file.resolve().is_relative_to(root)})
    listed = _git(Path(root), "ls-files", "-z", "--others", "--", *(f":(literal){file}" for file in inside))
    return tuple(sorted(name.decode(errors="replace") for name in (listed or b"").split(b"\0") if name))


def _limited(diff: bytes) -> bytes:
    if len(diff) <= LARGEST_DIFF:
        return diff
    kept = diff[:LARGEST_DIFF].rpartition(b"\n")[0]
    return kept + f"\n# cut here: the whole diff has {len(diff)} bytes\n".encode()


def _unless(value: str | None, nothing: str) -> str | None:
    return None if value == nothing else value
