"""What a server does with memory and files that the system would not do of itself."""

from __future__ import annotations

import ctypes
import gc
import logging
import sys
from collections.abc import Callable

logger = logging.getLogger(__name__)

TIDY_BYTES = 64 * 2**20
"""Bytes of requests and answers after which memory is tidied."""
TIDY_SECONDS = 2.0
"""Seconds between two looks whether it should be."""
_MOST_FILES = 1 << 20


def tidy() -> Callable[[], object]:
    """Frees what requests left behind.

    The collector's thresholds are high, so that it seldom holds requests up. A call of it empties the free lists too,
    whose few objects keep whole arenas in memory.

    Returns:
        What to call in a thread: it gives pages that are free in the middle of the heap back to the system. glibc keeps
        them otherwise, for each thread that ever used them.
    """
    gc.collect()
    return _trim


def _trim() -> None:
    if sys.platform != "linux":
        return
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # another C library
        logger.debug("this C library cannot give memory back", exc_info=True)


def allow_many_files() -> None:
    """Raises the limit on open files, which connections are, to what this process may have."""
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
    """Gives how many connections each of gRPC and REST may have, so that files are left for everything else."""
    try:
        import resource
    except ImportError:
        return wanted
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, max(16, (soft - 256) // 2))
