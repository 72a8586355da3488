"""Copying files, several at a time, with news of how far it is; it ends at once when it is interrupted."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path

from experiments_manager.cluster.source_listing import Listing
from experiments_manager.common.display.quantities import format_bytes

COPIES_AT_A_TIME = 8
"""A shared file system answers many calls in the time of one."""
SECONDS_BETWEEN_NEWS = 10.0
_CHUNK = 4 * 1024 * 1024

Tell = Callable[[str], None]


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
            done, pending = wait(pending, work.seconds_to_news(), FIRST_EXCEPTION)
            for future in done:
                future.result()
            if not pending or not work.seconds_to_news():
                tell(work.news())
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

    def seconds_to_news(self) -> float:
        return max(0.0, self._told + SECONDS_BETWEEN_NEWS - time.monotonic())

    def news(self) -> str:
        self._told = time.monotonic()
        rate = self._copied / max(self._told - self._began, 1e-3)
        left = f", {(self._size - self._copied) / rate:.0f} s left" if 0 < self._copied < self._size else ""
        return (
            f"Copied {format_bytes(self._copied)} of {format_bytes(self._size)}, {self._copied_files} of {self._files} "
            f"files{left}."
        )
