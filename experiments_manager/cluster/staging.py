"""Data copied to the node's own disk: once a node, verified, and taken for whole only when it is.

A copy has a folder of its own, named after its source and what is in it: `data/`, the file `whole.json`, which is
written last, and a lock. Who reads the copy shares the lock, who makes it holds it alone, so of several tasks on a node
one copies and the others wait. What a killed process has copied is kept: files that are whole are not copied again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TextIO

from experiments_manager.cluster.errors import ClusterError
from experiments_manager.common import atomic
from experiments_manager.common.display.quantities import format_bytes
from experiments_manager.common.error_text import reason
from experiments_manager.common.machine import disk_space, local_copies
from experiments_manager.common.machine.processes import try_lock

CALLS_AT_A_TIME, COPIES_AT_A_TIME = 16, 8
"""A shared file system answers many calls in the time of one."""
SECONDS_BETWEEN_REPORTS = 10.0
_CHUNK = 4 * 1024 * 1024
_WHOLE, _DATA, _LOCK = "whole.json", "data", "lock"
_OTHER = 'Name another folder on the node\'s own disk as `stage_dir`, in cluster.toml or `cluster = {"stage_dir": …}`.'

Tell = Callable[[str], None]


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


def copy_files(listing: Listing, names: Sequence[str], data: Path, tell: Tell) -> None:
    """Copy files. One that is whole has the time of its source; one that is not has another.

    Args:
        listing: What there is.
        names: Which of it is to be copied.
        data: Where to; the folders are there.
        tell: Told how far it is, every ten seconds and at the end.

    Raises:
        OSError: The first that a file met.
    """
    work = _Copying(sum(listing.files[name][0] for name in names), len(names))
    pool = ThreadPoolExecutor(COPIES_AT_A_TIME)
    try:
        pending: set[Future[None]] = {pool.submit(work.copy, listing.path(name), data / name) for name in names}
        while pending:
            done, pending = wait(pending, work.seconds_until_report(), FIRST_EXCEPTION)
            for future in done:
                future.result()
            if not pending or not work.seconds_until_report():
                tell(work.report())
    finally:
        work.stopped.set()
        pool.shutdown(cancel_futures=True)


class _Copying:
    """How much of the files has been copied."""

    def __init__(self, size: int, files: int) -> None:
        self._size, self._files = size, files
        self._copied, self._copied_files = 0, 0
        self._lock = threading.Lock()
        self._began = self._told = time.monotonic()
        self.stopped = threading.Event()

    def copy(self, source: Path, target: Path) -> None:
        with source.open("rb") as given, target.open("wb") as taken:
            while chunk := given.read(_CHUNK):
                if self.stopped.is_set():
                    return
                taken.write(chunk)
                with self._lock:
                    self._copied += len(chunk)
        shutil.copystat(source, target)
        with self._lock:
            self._copied_files += 1

    def seconds_until_report(self) -> float:
        return max(0.0, self._told + SECONDS_BETWEEN_REPORTS - time.monotonic())

    def report(self) -> str:
        self._told = time.monotonic()
        rate = self._copied / max(self._told - self._began, 1e-3)
        left = f", {(self._size - self._copied) / rate:.0f} s left" if 0 < self._copied < self._size else ""
        return (
            f"Copied {format_bytes(self._copied)} of {format_bytes(self._size)}, {self._copied_files} of {self._files} "
            f"files{left}."
        )


def stage_folder(setting: str | None = None) -> Path:
    """Return the node's own folder for copies: that of the setting, else of $SLURM_TMPDIR, $TMPDIR, or the system's.

    Raises:
        ClusterError: It does not exist, or cannot be written to.
    """
    named = {"stage_dir": setting and Path(os.path.expandvars(setting)).expanduser()}
    named |= {f"${name}": os.environ.get(name) for name in ("SLURM_TMPDIR", "TMPDIR")}
    source, folder = next(
        ((name, path) for name, path in named.items() if path), ("the system's", tempfile.gettempdir())
    )
    path = Path(folder).absolute()
    if not path.is_dir() or not os.access(path, os.W_OK | os.X_OK):
        raise ClusterError(
            f"--stage-data: {source} folder {path} does not exist on this node, or cannot be written. {_OTHER}"
        )
    return path / f"experiments_manager-{os.getuid()}"


@contextlib.contextmanager
def staged(sources: Sequence[Path], folder: Path, tell: Tell) -> Iterator[None]:
    """Copy data to the node's own disk, and let settings name the copies for the length of a `with` block.

    Args:
        sources: Folders or files.
        folder: Holds the copies; see `stage_folder`.
        tell: Told how it goes, now and then.

    Raises:
        ClusterError: A source cannot be read, or there is no room for its copy.
    """
    with contextlib.ExitStack() as stack:
        copies = {}
        for source in dict.fromkeys(Path(local_copies.normal_path(source)) for source in sources):
            copies[source] = stack.enter_context(_copy_of(source, folder, tell))
        stack.enter_context(local_copies.in_use(copies))
        yield


@contextlib.contextmanager
def _copy_of(source: Path, folder: Path, tell: Tell) -> Iterator[Path]:
    """Give the whole copy of a source, which stays while it is used."""
    listing = list_source(source)
    place = folder / f"{_key(source)}-{listing.digest[:12]}"
    with contextlib.ExitStack() as stack:
        try:
            _make_private(folder)
            place.mkdir(exist_ok=True)
            lock = stack.enter_context((place / _LOCK).open("a"))
            _take_whole(listing, place, lock, tell)
        except OSError as error:
            raise ClusterError(f"--stage-data {source}: {place}: {reason(error)}. {_OTHER}") from error
        yield place / _DATA / source.name


def _take_whole(listing: Listing, place: Path, lock: TextIO, tell: Tell) -> None:
    """Share the lock of a copy that is whole, after making it where it is not."""
    _lock(lock, listing.source, tell, shared=True)
    if not _is_whole(place, listing):
        fcntl.flock(lock, fcntl.LOCK_UN)
        _lock(lock, listing.source, tell, shared=False)
        if not _is_whole(place, listing):
            _remove_outdated(place, listing.source)
            _copy(listing, place, tell)
            _lock(lock, listing.source, tell, shared=True)
            return
        _lock(lock, listing.source, tell, shared=True)
    tell(f"{listing.source}: the copy on this node is whole, and is used again ({format_bytes(listing.bytes)}).")


def _key(source: Path) -> str:
    return f"{source.name}-{hashlib.sha256(str(source).encode()).hexdigest()[:12]}"


def _make_private(folder: Path) -> None:
    """Make the folder, which nobody else may write to: its name can be guessed.

    Raises:
        ClusterError: It is there and belongs to somebody else.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise ClusterError(f"--stage-data: {folder} belongs to another user. {_OTHER}")


def _lock(file: TextIO, source: Path, tell: Tell, *, shared: bool) -> None:
    """Take a lock; wait without holding up signals."""
    said = False
    while not try_lock(file, shared=shared):
        if not said:
            tell(f"{source}: another task on this node copies it; waiting.")
        said = True
        time.sleep(0.1)


def _is_whole(place: Path, listing: Listing) -> bool:
    """Return whether the copy was finished, and nothing of it was lost since then."""
    try:
        told = json.loads((place / _WHOLE).read_text(encoding="utf-8"))
        return told["digest"] == listing.digest and not _missing(listing, place / _DATA)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _missing(listing: Listing, data: Path) -> list[str]:
    """Return names of files of which there is no whole copy. A copy has the time of its source when it is whole."""

    def is_whole(name: str) -> bool:
        try:
            found = (data / name).lstat()
        except OSError:
            return False
        return (found.st_size, found.st_mtime_ns) == listing.files[name]

    return [name for name in listing.files if not is_whole(name)]


def _remove_outdated(place: Path, source: Path) -> None:
    """Remove copies of what the source held before, as far as nobody reads them."""
    for other in place.parent.glob(f"{_key(source)}-*"):
        if other == place:
            continue
        with contextlib.suppress(OSError), (other / _LOCK).open("a") as lock:
            if try_lock(lock):
                _clear(other)


def _clear(place: Path) -> None:
    """Remove a copy; its lock stays, for somebody may be about to take it."""
    (place / _WHOLE).unlink(missing_ok=True)
    shutil.rmtree(place / _DATA, ignore_errors=True)


def _copy(listing: Listing, place: Path, tell: Tell) -> None:
    """Copy what is missing, verify the sizes, and say last that the copy is whole."""
    (place / _WHOLE).unlink(missing_ok=True)
    data = place / _DATA
    missing = _missing(listing, data)
    needed, free = sum(listing.files[name][0] for name in missing), shutil.disk_usage(place).free
    if needed > free:
        _clear(place)
        raise ClusterError(
            f"--stage-data {listing.source}: {place} has not enough space. Expected {format_bytes(needed)}, got "
            f"{format_bytes(free)} free. {_OTHER}"
        )
    tell(f"Copying {listing.source} to {data / listing.source.name}: {format_bytes(needed)} in {len(missing)} files.")
    for name in ["", *listing.folders]:
        (data / name).mkdir(parents=True, exist_ok=True)
    try:
        copy_files(listing, missing, data, tell)
    except OSError as error:
        if disk_space.is_full(error):
            _clear(place)  # what is left would fill the disk of others
            raise ClusterError(f"--stage-data {listing.source}: {place}: {reason(error)}. {_OTHER}") from error
        raise ClusterError(f"--stage-data {listing.source}: it cannot be copied: {reason(error)}.") from error
    changed = _missing(listing, data)
    if changed:
        raise ClusterError(
            f"--stage-data {listing.source}: {changed[0]} changed while it was copied. Expected data that nobody "
            "writes to. Copy it when it is complete."
        )
    atomic.write_json(place / _WHOLE, {"source": str(listing.source), "digest": listing.digest})
