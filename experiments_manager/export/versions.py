"""Versions on disk: integer-named folders, each a whole SavedModel."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

logger = logging.getLogger(__name__)

STAGE_PREFIX = ".stage-"
"""Model servers look at integer names alone, so what is being written is never served."""


def list_versions(base_path: Path) -> dict[int, Path]:
    """Find the versions in a folder: subfolders whose names are numbers; the rest is ignored.

    Raises:
        OSError: The folder cannot be read.
    """
    found: dict[int, Path] = {}
    for path in sorted(base_path.iterdir()):
        if path.name.isascii() and path.name.isdigit() and len(path.name) < 20 and path.is_dir():
            number = int(path.name)
            if number < 2**63:
                found[number] = path  # of 01 and 1 the last one counts, as in TensorFlow Serving
    base_path.stat()  # where the folder itself has gone away meanwhile, its versions only seem to be removed
    return found


def versions(folder: Path) -> list[int]:
    """List the published versions, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if _is_version(path.name) and path.is_dir())


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit()  # `²` is a digit too, and no number


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` versions; 0 keeps all. One that cannot be removed stays, with a warning."""
    for version in versions(folder)[: -keep or None] if keep else []:
        try:
            remove(folder, version)
        except FileNotFoundError:  # somebody else removed it, or its name is `007`
            continue
        except OSError as error:
            logger.warning("Version %d in %s cannot be removed: %s.", version, folder, error.strerror)


def remove(folder: Path, version: int) -> None:
    """Remove a version; renamed first, so that a server never sees half of it."""
    doomed = folder / f"{STAGE_PREFIX}old-{version}"
    shutil.rmtree(doomed, ignore_errors=True)
    (folder / str(version)).rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_stages(folder: Path) -> None:
    """Remove what an earlier process left half written."""
    if folder.is_dir():
        for path in folder.glob(f"{STAGE_PREFIX}*"):
            shutil.rmtree(path, ignore_errors=True)
