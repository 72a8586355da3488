"""Child processes: bound to the life of their parent, ended with patience, found again; and what they use.

A child of ours leads a session (`start_new_session=True`), so that Ctrl-C in a terminal is for the parent alone, and a
signal to its group reaches what it started itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from typing import IO

import psutil

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

KILL_PATIENCE = 10.0
"""Seconds that a process has to be gone after SIGKILL, which a busy machine may need."""
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_POLL = 0.05


def die_with_parent(parent: int) -> None:
    """Let the kernel end this process by SIGTERM when its parent dies, even by SIGKILL; on Linux alone.

    The kernel means the thread that started this process: it must live as long as the process should.

    Args:
        parent: The parent's process id. Where that has died already, this process exits at once.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(0)  # as it would have ended a moment later


def end_session(process: subprocess.Popen, patience: float) -> None:
    """End the leader of a session with all that it started: by SIGTERM and, `patience` seconds later, by SIGKILL."""
    _signal_session(process, signal.SIGTERM)
    wait_or_kill_session(process, patience)


def wait_or_kill_session(process: subprocess.Popen, patience: float) -> None:
    """Wait for the leader of a session to end; after `patience` seconds kill it with all that it started."""
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        _signal_session(process, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(KILL_PATIENCE)


def _signal_session(process: subprocess.Popen, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def processes_with(variable: str, value: str) -> list[psutil.Process]:
    """Return the processes whose environment holds this variable with this value, whoever their parent is."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # it has ended, or is another user's
            if process.environ().get(variable) == value:
                found.append(process)
    return found


def kill_processes_with(variable: str, value: str, patience: float = 0.0) -> None:
    """Wait `patience` seconds for all processes with this in their environment to end, then kill those that are left.

    Finds also what made a session of its own, where a signal to the group of its parent does not reach it.
    """
    begin = time.monotonic()
    while (left := processes_with(variable, value)) and time.monotonic() < begin + patience + KILL_PATIENCE:
        if time.monotonic() >= begin + patience:
            for process in left:
                with contextlib.suppress(psutil.Error):
                    process.kill()
        time.sleep(_POLL)


def try_lock(file: IO, *, shared: bool = False) -> bool:
    """Lock an open file against other processes, without waiting; where the system has no such locks, all may have it.

    The lock ends when the file is closed, also by a process that is killed. Locking again changes the kind of the lock.

    Args:
        file: An open file.
        shared: Whether others may share the lock.

    Returns:
        Whether it is locked now; False where somebody else holds it.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def resident_bytes() -> int:
    """Return how much memory this process takes."""
    return psutil.Process().memory_info().rss


def own_bytes(process: psutil.Process) -> int:
    """Return the memory that a process alone has, not what it shares with the one that it was forked from.

    Shared memory is counted too where the system does not tell it apart; nothing is, of a process that has ended.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        try:
            return process.memory_full_info().uss
        except (psutil.AccessDenied, AttributeError):
            return process.memory_info().rss
    return 0


def usable_processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
