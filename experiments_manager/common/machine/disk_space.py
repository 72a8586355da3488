"""Space on a disk: is there none left, and a little that a run sets aside for its last words when there is none."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
"""Numbers of the operating system's errors, and what they mean."""
_RESERVE = ".reserve"
_LEAST_BYTES = 16 * 1024


def is_full(error: BaseException) -> bool:
    """Return whether an error says that there is no space left: Python by a number, TensorFlow in words."""
    if isinstance(error, OSError):
        return error.errno in FULL
    return any(os.strerror(code) in str(error) for code in FULL)


@contextlib.contextmanager
def reserved_space(folder: Path) -> Iterator[None]:
    """Set space aside for the length of a `with` block: enough for run.json and its successor.

    Where there is none left, nothing is set aside; what a killed process set aside is taken over.
    """
    file = folder / _RESERVE
    with contextlib.suppress(OSError):
        size = max(_LEAST_BYTES, 3 * (folder / "run.json").stat().st_size)
        file.write_bytes(os.urandom(size))  # a file system that compresses would make nothing of zeros
    try:
        yield
    finally:
        use_reserve(folder)


def use_reserve(folder: Path) -> bool:
    """Free what was set aside; return whether there was anything."""
    try:
        (folder / _RESERVE).unlink()
    except OSError:
        return False
    return True
