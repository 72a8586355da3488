"""Python, the packages of each extra, and programs on the path."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable

from experiments_manager.common.installation import (
    DISTRIBUTION,
    FORMER_DISTRIBUTION,
    SOURCE,
    install_command,
    requirements_by_extra,
)
from experiments_manager.common.version import __version__
from experiments_manager.doctor.finding import Finding, note, ok

_LAST_TESTED = (3, 13)
_NOT_LISTED = {"", "all", "test", "gpu"}
"""The package itself, extras that are unions of others, and what is looked at elsewhere."""
_NAME = re.compile(r"[\w.-]+")
_SECONDS = 3.0


def python() -> Finding:
    """Tell the versions of Python and of this package."""
    text = f"{platform.python_version()} ({sys.executable}), experiments_manager {__version__}"
    if sys.version_info[:2] > _LAST_TESTED:
        return note("Python", text, f"It was tested up to Python {_LAST_TESTED[0]}.{_LAST_TESTED[1]}; use that.")
    return ok("Python", text)


def extras() -> Finding:
    """Tell which extras of the package are installed, and which of their packages are missing."""
    needed = {extra: names for extra, names in requirements_by_extra().items() if extra not in _NOT_LISTED}
    missing = {extra: _missing(names) for extra, names in sorted(needed.items())}
    complete = [extra for extra, names in missing.items() if not names]
    lacking = [extra for extra, names in missing.items() if names]
    text = f"installed: {', '.join(complete) or 'none'}"
    if not lacking:
        return ok("Extras", text)
    lists = "; ".join(f"{extra} (lacks {', '.join(missing[extra])})" for extra in lacking)
    return note("Extras", f"{text}; missing: {lists}", f"To add {lacking[0]}: {install_command(lacking[0])}")


def distribution() -> Finding:
    """Tell whether this package is installed, and whether another author's of the same import name is too."""
    if _has(FORMER_DISTRIBUTION):
        text = f"{FORMER_DISTRIBUTION} is installed too: an earlier installation, or another author's package"
        remedy = f"pip uninstall {FORMER_DISTRIBUTION} {DISTRIBUTION}, then install this one again."
        return note("Package", text, remedy)
    if _has(DISTRIBUTION):
        return ok("Package", f"{DISTRIBUTION} {importlib.metadata.version(DISTRIBUTION)}")
    return note(
        "Package", f"imported from {SOURCE}, not installed", f"Install it: pip install {shlex.quote(str(SOURCE))}"
    )


def apptainer() -> Finding:
    """Tell whether images can be run."""
    for name in ("apptainer", "singularity"):
        if shutil.which(name):
            return _version("Apptainer", [name, "--version"])
    remedy = "Needed only to run in images: https://apptainer.org/docs/admin/main/installation.html"
    return note("Apptainer", "not on the path", remedy)


def slurm() -> Finding:
    """Tell whether jobs can be submitted."""
    if not shutil.which("sbatch"):
        return note("SLURM", "sbatch is not on the path", "Needed only for `submit`: log in to a node of the cluster.")
    return _version("SLURM", ["sbatch", "--version"])


def _version(name: str, command: list[str]) -> Finding:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return note(name, f"`{' '.join(command)}` failed: {error}", f"Repair or remove {shutil.which(command[0])}.")
    said = (done.stdout or done.stderr).strip().splitlines()
    if done.returncode != 0:
        text = f"`{' '.join(command)}` ended with code {done.returncode}: {said[-1] if said else 'no message'}"
        return note(name, text, f"Repair or remove {shutil.which(command[0])}.")
    return ok(name, said[0] if said else command[0])


def _missing(requirements: Iterable[str]) -> list[str]:
    names = [name for text in requirements for name in _distributions(text)]
    return [name for name in dict.fromkeys(names) if not _has(name)]


def _distributions(requirement: str) -> list[str]:
    """Return the distributions that a requirement stands for here, those of the extras that it names among them."""
    try:
        from packaging.requirements import InvalidRequirement, Requirement
    except ImportError:  # keras needs it, which may be missing itself
        return [match.group()] if (match := _NAME.match(requirement)) else []
    try:
        wanted = Requirement(requirement)
    except InvalidRequirement:
        return []
    if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
        return []
    try:
        declared = [Requirement(text) for text in importlib.metadata.requires(wanted.name) or []]
    except importlib.metadata.PackageNotFoundError:
        declared = []
    marked = [(item.name, item.marker) for item in declared if item.marker and not item.marker.evaluate({"extra": ""})]
    chosen = [name for extra in wanted.extras for name, marker in marked if marker.evaluate({"extra": extra})]
    return [wanted.name, *chosen]


def _has(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
