"""Where conversions write: new folders, which appear whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

from experiments_manager.common.atomic import replace_directory, staging_path
from experiments_manager.common.tables.problems import DataFileError


@dataclasses.dataclass(frozen=True)
class SplitSummary:
    """Numbers of images and boxes of a split."""

    images: int
    boxes: int


def refuse_existing(folder: Path) -> None:
    """Refuse to write into a folder that holds something.

    Raises:
        DataFileError: It does.
    """
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        raise DataFileError(f"{folder} exists already. Expected a new folder. Name another one, or remove it.")


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give a folder to write into, which gets its name when the block ends, and is removed if it fails."""
    stage = staging_path(target)
    try:
        stage.mkdir(parents=True)
        yield stage
        replace_directory(stage, target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
