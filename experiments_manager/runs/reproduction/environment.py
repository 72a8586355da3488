"""The environment of a run, made again from the packages that its run.json names."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import experiments_manager
from experiments_manager.common.installation import DISTRIBUTION, FORMER_DISTRIBUTION
from experiments_manager.common.version import __version__
from experiments_manager.runs.errors import RunError, explain

_OURS = (DISTRIBUTION, FORMER_DISTRIBUTION)
_COMPLETE = "complete"
"""File in an environment that is whole; it names the packages."""
_MARK = "made_by_reproduce"
"""Empty file in an environment, which may therefore be removed and made again."""
_OF_INSTALLATION = {*_OURS, "pip", "setuptools", "wheel", "uv"}
"""Packages that are there anyway, or that no result follows from."""


def requirements(manifest: Mapping[str, Any]) -> list[str]:
    """Return the packages of a run as pip's requirements.

    Raises:
        RunError: The run does not name any.
    """
    packages = manifest.get("packages") or {}
    named = [f"{name}=={version}" for name, version in packages.items() if _installable(name, version)]
    if not named:
        raise RunError(
            "The run names no packages. Expected `packages` in its run.json. Use --here to train it as it is."
        )
    return named


def differing_packages(manifest: Mapping[str, Any], installed: Mapping[str, str]) -> dict[str, tuple[str, str | None]]:
    """Return the packages of a run whose version is another one here: that of the run, and that of here."""
    packages = {k: v for k, v in (manifest.get("packages") or {}).items() if k not in _OF_INSTALLATION}
    packages["experiments_manager"] = _our_version(manifest)
    here = {**installed, "experiments_manager": __version__}
    return {name: (was, here.get(name)) for name, was in packages.items() if here.get(name) != was}


@contextlib.contextmanager
def environment_of(
    manifest: Mapping[str, Any],
    folder: Path | None = None,
    wheels: Path | None = None,
    *,
    keep: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Iterator[Path]:
    """Give the Python of an environment with the packages of a run, which is removed afterwards.

    Args:
        manifest: The content of the run's run.json.
        folder: Where it is made and kept; by default in the user's cache, by the packages that it holds.
        wheels: As for `make_environment`.
        keep: Whether it stays in the cache; one that was there before stays anyway.
        tell: Is told what happens.

    Raises:
        RunError: As for `make_environment`.
    """
    place = (folder or cached_environment(requirements(manifest))).expanduser().absolute()
    stays = keep or folder is not None or (place / _COMPLETE).exists()
    tell(f"Installing the packages of the run in {place}{'' if stays else ', which is removed afterwards'}")
    try:
        yield make_environment(place, manifest, wheels)
    finally:
        if not stays and (place / _MARK).is_file():
            shutil.rmtree(place, ignore_errors=True)


def cached_environment(wanted: Sequence[str]) -> Path:
    """Return the folder of an environment with some packages, below `$XDG_CACHE_HOME`, by default `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME")
    digest = hashlib.sha256("\n".join([platform.python_version(), *wanted]).encode()).hexdigest()[:16]
    return (Path(base) if base else Path.home() / ".cache") / "experiments_manager" / "environments" / digest


def make_environment(folder: Path, manifest: Mapping[str, Any], wheels: Path | None = None) -> Path:
    """Make a virtual environment with the packages of a run.

    Args:
        folder: Where; one that was made for these packages is used as it is, for others it is made anew.
        manifest: The content of the run's run.json.
        wheels: Folder of wheels to install from, without a network.

    Returns:
        Its Python.

    Raises:
        RunError: The Python or the release of this package is another one, the folder holds something else, or a
            package cannot be installed.
    """
    _check_versions(manifest)
    wanted = requirements(manifest)
    python = folder / "bin" / "python"
    done = folder / _COMPLETE
    if done.exists() and done.read_text(encoding="utf-8").split() == wanted:
        return python
    _clear(folder)
    _call([sys.executable, "-m", "venv", str(folder)], "make a virtual environment")
    listed = folder / "requirements.txt"
    listed.write_text("\n".join(wanted) + "\n", encoding="utf-8")
    offline = [] if wheels is None else ["--no-index", "--find-links", str(wheels)]
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", *offline]
    _call([*install, "--requirement", str(listed)], "install the packages of the run")
    _add_this_package(python)
    done.write_text("\n".join(wanted), encoding="utf-8")
    return python


def _clear(folder: Path) -> None:
    """Leave an empty folder that is marked as ours; nothing that we did not make is ever removed."""
    mark = folder / _MARK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if mark.is_file():
            shutil.rmtree(folder)
            folder.mkdir()
        elif any(folder.iterdir()):
            raise RunError(
                f"{folder} is no environment that `reproduce` has made. Expected a new or an empty folder, as all "
                "in it would be removed. Name another one by --environment."
            )
        mark.touch()
    except OSError as error:
        raise explain(error, "make", folder) from error


def _check_versions(manifest: Mapping[str, Any]) -> None:
    was = str((manifest.get("host") or {}).get("python", ""))
    here = platform.python_version()
    if was.split(".")[:2] != here.split(".")[:2]:
        raise RunError(
            f"The run was made with another Python. Expected {was or 'its version in run.json'}, got {here}. Start "
            "`reproduce` with that Python, or use --here to train with the packages that are installed."
        )
    ours = _our_version(manifest)
    if ours != __version__:
        raise RunError(
            f"The run was made with another experiments_manager. Expected {ours}, got {__version__}. Install that "
            "release, or use --here to train with this one."
        )


def _our_version(manifest: Mapping[str, Any]) -> Any:
    packages = manifest.get("packages") or {}
    return next((packages[name] for name in _OURS if name in packages), manifest.get("tool_version"))


def _add_this_package(python: Path) -> None:
    """Let the environment import this very package, whose version is that of the run."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(_call([str(python), "-c", code], "ask the new environment for its packages").strip())
    place = Path(experiments_manager.__file__).resolve().parents[1]
    packages.joinpath("experiments_manager.pth").write_text(
        f"import sys; sys.path.append({str(packages)!r})\n" if place == packages else f"{place}\n", encoding="utf-8"
    )


def _installable(name: str, version: str) -> bool:
    return name not in _OF_INSTALLATION and version != "unknown"


def _call(command: list[str], what: str) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise RunError(f"Cannot {what}: {said[-1] if said else f'code {done.returncode}'}. See it by hand: {command}")
    return done.stdout
