"""The working folder: space, speed, and the locks that run folders rely on."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

from experiments_manager.doctor.finding import Finding, note, ok, problem

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

_MIB = 2**20
_GIB = 2**30
_BLOCK = os.urandom(_MIB)  # a file system that compresses would make nothing of zeros
_LARGEST = 64
_SECONDS = 1.0
_SLOW = 20.0
_LEAST_FREE = 5 * _GIB
_NO_SPACE = 100 * _MIB


def working_folder(folder: Path) -> list[Finding]:
    """Tell free space, write speed and support of locks where run folders are made.

    Args:
        folder: The working folder; where it is not there yet, the folder that it would be made in is looked at.
    """
    place = nearest_existing(folder)
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        remedy = "Choose another by --working-dir, or the setting working_dir."
        return [problem("Working folder", f"{folder}: no permission to write in {place}", remedy)]
    findings = [free_space(folder, shutil.disk_usage(place).free)]
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=place) as probe:
            findings += [write_speed(Path(probe)), locks(Path(probe))]
    except OSError as error:
        remedy = "Free space there, or choose another folder by --working-dir."
        findings.append(problem("Working folder", f"{place} cannot be written: {error.strerror}", remedy))
    return findings


def nearest_existing(folder: Path) -> Path:
    """Return the folder itself, or the nearest one above it that is there."""
    folder = folder.expanduser().absolute()
    return next((place for place in (folder, *folder.parents) if os.path.lexists(place)), folder)


def free_space(folder: Path, free: int) -> Finding:
    """Judge the free space of a folder."""
    text = f"{folder}: {free / _GIB:.1f} GiB free"
    remedy = "Free space there, or choose another folder by --working-dir."
    if free < _NO_SPACE:
        return problem("Working folder", text, remedy)
    if free < _LEAST_FREE:
        return note("Working folder", text, remedy)
    return ok("Working folder", text)


def write_speed(probe: Path) -> Finding:
    """Measure how fast checkpoints reach the disk: some blocks, brought to the disk, for a second at most."""
    start = time.monotonic()
    written = 0
    with (probe / "speed").open("wb", buffering=0) as stream:
        while written < _LARGEST and time.monotonic() - start < _SECONDS:
            stream.write(_BLOCK)
            os.fsync(stream.fileno())
            written += 1
    speed = written / max(time.monotonic() - start, 1e-6)
    text = f"{speed:.0f} MiB/s to the disk"
    if speed < _SLOW:
        return note("Write speed", text, "Checkpoints will be slow. Use a local or parallel disk as working folder.")
    return ok("Write speed", text)


def locks(probe: Path) -> Finding:
    """Try what keeps two processes from one run folder: hard links, and locks on folders."""
    lacking = [name for name, works in (("hard links", _links(probe)), ("flock", _flock(probe))) if not works]
    if lacking:
        remedy = "Never start the same run twice at once there, or use another disk as working folder."
        return note("Locks", f"the file system lacks {' and '.join(lacking)}", remedy)
    return ok("Locks", "hard links and flock work")


def _links(probe: Path) -> bool:
    (probe / "one").touch()
    with contextlib.suppress(OSError):
        os.link(probe / "one", probe / "two")
        return True
    return False


def _flock(probe: Path) -> bool:
    if fcntl is None:
        return False
    descriptor = os.open(probe, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
