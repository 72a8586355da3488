"""A little space that a run sets aside while it is trained, for its last words on a disk that is full by then."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_NAME = ".reserve"
_LEAST = 16 * 1024


@contextlib.contextmanager
def reserved_space(folder: Path) -> Iterator[None]:
    """Set space aside for the length of a `with` block: enough for run.json and its successor.

    Where there is none left, nothing is set aside; what a killed process set aside is taken over.
    """
    file = folder / _NAME
    with contextlib.suppress(OSError):
        size = max(_LEAST, 3 * (folder / "run.json").stat().st_size)
        file.write_bytes(os.urandom(size))  # a file system that compresses would make nothing of zeros
    try:
        yield
    finally:
        use_reserve(folder)


def use_reserve(folder: Path) -> bool:
    """Free what was set aside; return whether there was anything."""
    try:
        (folder / _NAME).unlink()
    except OSError:
        return False
    return True
