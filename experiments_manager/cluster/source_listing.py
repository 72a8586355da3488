"""What is in a folder of data, told by names, sizes and times."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import stat
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from experiments_manager.cluster.errors import ClusterError
from experiments_manager.common.error_text import reason

CALLS_AT_A_TIME = 16
"""A shared file system answers many calls in the time of one."""


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files of a folder, or a single file.

    Attributes:
        source: The folder or file.
        files: Size and time of each file, by its name seen from the parent of the source.
        folders: Names of the folders.
    """

    source: Path
    files: dict[str, tuple[int, int]]
    folders: list[str]

    def path(self, name: str) -> Path:
        """Return where the file of a name is."""
        return self.source.parent / name

    @property
    def bytes(self) -> int:
        """What all files hold together."""
        return sum(size for size, _ in self.files.values())

    @functools.cached_property
    def digest(self) -> str:
        """A checksum over names, sizes and times."""
        return hashlib.sha256(json.dumps([sorted(self.files.items()), sorted(self.folders)]).encode()).hexdigest()


def list_source(source: Path) -> Listing:
    """List a folder or file; links are followed.

    Raises:
        ClusterError: It does not exist, cannot be read, or holds nothing.
    """
    pool = ThreadPoolExecutor(CALLS_AT_A_TIME)
    try:
        listing = _listed(source, pool)
    except FileNotFoundError as error:
        raise ClusterError(
            f"--stage-data {source}: {error.filename} does not exist. Expected a folder or file that this node sees."
        ) from error
    except OSError as error:
        raise ClusterError(f"--stage-data {source}: it cannot be read: {reason(error)}.") from error
    finally:
        pool.shutdown(cancel_futures=True)
    if not listing.files or source == Path(source.anchor):
        raise ClusterError(f"--stage-data {source}: expected a folder with data, or a file; got nothing to copy.")
    return listing


def _listed(source: Path, pool: Executor) -> Listing:
    """List level by level, the files of a level at the same time."""
    files: dict[str, tuple[int, int]] = {}
    folders: list[str] = []
    level: list[tuple[str, tuple[str, ...]]] = [(source.name, ())]  # names, and the folders above them
    while level:
        found = pool.map(lambda entry: os.stat(source.parent / entry[0]), level)  # noqa: PTH116
        inner: list[tuple[str, tuple[str, ...]]] = []
        for (name, above), status in zip(level, found, strict=True):
            if stat.S_ISREG(status.st_mode):
                files[name] = (status.st_size, status.st_mtime_ns)
            elif not stat.S_ISDIR(status.st_mode):
                path = source.parent / name
                raise ClusterError(
                    f"--stage-data: {path} is no file. Expected folders and files alone. Name a folder below."
                )
            elif (real := os.path.realpath(source.parent / name)) not in above:  # a link may lead back to one above
                folders.append(name)
                inner.append((name, (*above, real)))
        names = pool.map(lambda folder: sorted(os.listdir(source.parent / folder[0])), inner)  # noqa: PTH208
        level = [
            (f"{name}/{entry}", above) for (name, above), entries in zip(inner, names, strict=True) for entry in entries
        ]
    return Listing(source, files, folders)
