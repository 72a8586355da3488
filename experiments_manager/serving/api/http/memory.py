"""What a server does with memory and files that the system would not do of itself."""

from __future__ import annotations

import ctypes
import gc
import logging
import sys

from experiments_manager.common.machine.processes import resident_bytes

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""Seconds between two looks whether memory should be tidied."""
_ENOUGH_BYTES = 32 * 2**20
"""Bytes above the least that was ever seen after tidying, from which it is worth another attempt."""
_LONGEST_SECONDS = 60.0
_MOST_FILES = 1 << 20


class MemoryTrimmer:
    """Gives memory that requests left behind back to the system. Belongs to the event loop.

    The collector's thresholds are high, so that it seldom holds requests up, and glibc keeps pages that are free in the
    middle of the heap, for each thread that ever used them. Where the process has grown, both are asked to let go;
    after attempts that brought nothing, ever less often.
    """

    def __init__(self) -> None:
        self._floor = resident_bytes()
        self._wait, self._next = LOOK_SECONDS, 0.0

    def is_due(self, now: float, freed: int) -> bool:
        """Return whether it is time to tidy.

        Args:
            now: Seconds, of a clock that never goes back.
            freed: Bytes of requests that were let go of since the last time.
        """
        if resident_bytes() <= self._floor + _ENOUGH_BYTES:
            return False
        return now >= self._next or freed >= _ENOUGH_BYTES

    def collect(self) -> None:
        """Free cycles, and empty the free lists, whose few objects keep whole arenas in memory; on the loop."""
        gc.collect()

    def trim(self, now: float) -> None:
        """Give free pages back; takes some milliseconds, in a thread."""
        before = resident_bytes()
        _trim()
        after = resident_bytes()
        self._floor = min(self._floor, after)
        idle = before - after < _ENOUGH_BYTES // 4
        self._wait = min(2 * self._wait, _LONGEST_SECONDS) if idle else LOOK_SECONDS
        self._next = now + self._wait


def _trim() -> None:
    if sys.platform != "linux":
        return
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # another C library
        logger.debug("this C library cannot give memory back", exc_info=True)


def allow_many_files() -> None:
    """Raise the limit on open files, which connections are, to what this process may have."""
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        except (OSError, ValueError):
            logger.debug("the limit on open files cannot be raised", exc_info=True)


def connections_possible(wanted: int) -> int:
    """Return how many connections each of gRPC and REST may have, so that files are left for everything else."""
    try:
        import resource
    except ImportError:
        return wanted
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, max(16, (soft - 256) // 2))
