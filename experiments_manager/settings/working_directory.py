"""The working directory that hooks of settings files of the earlier framework expect."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from experiments_manager.settings.settings import Settings


@contextlib.contextmanager
def working_directory(settings: Settings, folder: Path) -> Iterator[None]:
    """Inside, hooks of settings files of the earlier framework find the run folder as working directory."""
    if not settings.is_earlier:
        yield
        return
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
