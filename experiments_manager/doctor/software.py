"""Python, the packages of each extra, and programs on the path."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable

from experiments_manager.common.version import __version__
from experiments_manager.doctor.finding import Finding, note, ok

DISTRIBUTION = "experiments-manager"
_LAST_TESTED = (3, 13)
_NOT_FOR_USERS = {"all", "test", "gpu"}
"""Extras that are unions of others, or looked at elsewhere."""
_CONDITION = re.compile(r"""extra\s*==\s*["']([\w-]+)["']""")
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
    try:
        requirements = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        remedy = "Install it: pip install experiments-manager"
        return note("Extras", f"{DISTRIBUTION} is not installed, only imported from its folder", remedy)
    missing = {extra: _missing(names) for extra, names in _by_extra(requirements).items()}
    complete = [extra for extra, names in missing.items() if not names]
    lacking = [extra for extra, names in missing.items() if names]
    text = f"installed: {', '.join(complete) or 'none'}"
    if not lacking:
        return ok("Extras", text)
    lists = "; ".join(f"{extra} (lacks {', '.join(missing[extra])})" for extra in lacking)
    return note("Extras", f"{text}; missing: {lists}", f"To add one: pip install '{DISTRIBUTION}[{lacking[0]}]'")


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


def _by_extra(requirements: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for requirement in requirements:
        named, _, condition = requirement.partition(";")
        match = _CONDITION.search(condition)
        if match and match.group(1) not in _NOT_FOR_USERS and "platform_system" not in condition:
            name = _NAME.match(named.strip())
            found.setdefault(match.group(1), []).append(name.group() if name else named)
    return dict(sorted(found.items()))


def _missing(names: Iterable[str]) -> list[str]:
    missing = []
    for name in names:
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    return missing
