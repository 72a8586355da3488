"""One process on a run folder at a time.

The lock is the file `run.lock`: it appears with its whole content, exclusively, and says who holds it. Left by a dead
process, it is taken over:

- A process of this host is judged by its process id *and* the time it started, for ids are used again.
- A process that cannot be seen from here (another host, another container) is judged by its heartbeat: the holder
  touches the file every 20 seconds, and a lock not touched for 5 minutes, by the file server's own clock, is stale.
  A job of a cluster that is queued again and starts on another host has the number of the holder's job: the cluster
  starts no job twice at a time, so the holder has ended.

Where the file system supports `flock` on folders (all common local ones), it also guards the moment in which a dead
lock is judged and replaced, so of two processes that find it at once only one gets it. NFS does not support it; there
this one guarantee is missing, for two processes *of the same host* that start within the same millisecond.
A process stopped for more than 5 minutes (SIGSTOP, a suspended machine) may lose its lock to one on another host; it
notices when it goes on, says so in the log, and `RunLock.lost` becomes true.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from experiments_manager.common import atomic
from experiments_manager.runs.errors import RunError, explain
from experiments_manager.runs.held_folder import HeldFolder
from experiments_manager.runs.run import Run

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

LOCK_FILE = "run.lock"
HEARTBEAT = 20.0
"""Seconds between two touches of the lock by its holder."""
STALE_AFTER = 300.0
"""Seconds without a touch after which a holder that cannot be seen from here is taken for dead."""

OUT_OF_JOB = 60.0
"""Seconds that a cluster may take to end the processes of a job that it starts again on the same host."""


@dataclasses.dataclass(frozen=True)
class Holder:
    """The process that holds a lock."""

    host: str
    pid: int
    process_start: str
    """When the process started, as the system counts it; with `pid` and `process_space` it names one process ever."""
    process_space: str
    """Boot of the machine and namespace in which `pid` counts; empty where the system does not tell."""
    since: str
    """ISO 8601 with zone."""
    token: str
    """Random, so that two locks of the same process are told apart."""
    job: str = ""
    """Number of the cluster's job that the process belongs to; empty outside of one."""

    def describe(self) -> str:
        """Give the words that name it in messages."""
        return f"process {self.pid} on host {self.host} since {self.since}"


class RunLock:
    """The lock on one run folder, held from `acquire` to `release`; each object serves once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.folder: HeldFolder | None = None
        """The run's folder while the lock is held; it may be moved."""
        self.lost = False
        """Whether the lock was removed, or taken over because this process was stopped too long."""
        self._holder: Holder | None = None
        self._released = threading.Event()

    @property
    def file(self) -> Path:
        """The lock file of the run folder."""
        return self.run.path / LOCK_FILE

    def acquire(self) -> None:
        """Take the lock, also from a dead process.

        Raises:
            RunError: Another process holds it; the message names host and process id. Or it cannot be written.
        """
        holder = _this_process()
        try:
            self._wait_for_former_start_of_job()
            with _guarded(self.run.path):
                while not _create(self.file, holder):
                    self._make_way()
                atomic.remove_leftovers(self.run.path)
        except OSError as error:
            raise explain(error, "lock", self.run.path) from error
        self._holder = holder
        self.folder = HeldFolder(self.run)
        threading.Thread(target=self._beat, name="run lock heartbeat", daemon=True).start()

    def release(self) -> None:
        """Give the lock back; nothing happens where it is not held any more."""
        self._released.set()
        if self._holder is None or self._holder.pid != os.getpid():  # a forked child must not release its parent's lock
            return
        with contextlib.suppress(OSError), _guarded(self.run.path):
            if read_holder(self.file) == self._holder:
                self.file.unlink()
        self._holder = None
        self.folder.close()

    def _wait_for_former_start_of_job(self) -> None:
        """Wait while a process of the same job, from before it was queued again, is on its way out on this host."""
        deadline = time.monotonic() + OUT_OF_JOB
        while time.monotonic() < deadline:
            holder = read_holder(self.file)
            if holder is None or not holder.job or holder.job != _job() or not is_held(self.file, holder):
                return
            time.sleep(0.5)

    def _make_way(self) -> None:
        """Remove the lock of a dead process, or refuse."""
        holder = read_holder(self.file)
        if is_held(self.file, holder):
            raise RunError(_refusal(self.run, self.file, holder))
        if self.file.exists():
            logger.warning(
                "Taking over the lock on %s from %s, which has ended.",
                self.run.path,
                holder.describe() if holder else "an unknown process",
            )
        self.file.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT):
            if self.folder.is_elsewhere:
                continue
            holder = read_holder(self.file)
            taken = holder is not None and holder != self._holder
            if (taken or _is_gone(self.file)) and not self._released.is_set():
                self.lost = True
                logger.error("The lock on %s was removed, or taken over by another process.", self.run.path)
                return
            with contextlib.suppress(OSError):
                os.utime(self.file)


@contextlib.contextmanager
def lock(run: Run) -> Iterator[RunLock]:
    """Hold the lock on a run folder for the length of a `with` block.

    Args:
        run: The run that only this process shall write to.

    Yields:
        The lock.

    Raises:
        RunError: Another process holds it; the message names host and process id.
    """
    held = RunLock(run)
    held.acquire()
    try:
        yield held
    finally:
        held.release()


def read_holder(file: Path) -> Holder | None:
    """Read who holds a lock; `None` where there is no lock or it is damaged."""
    try:
        holder = Holder(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return holder if isinstance(holder.pid, int) and holder.pid > 0 else None


def is_held(file: Path, holder: Holder | None = None) -> bool:
    """Tell whether a living process holds the lock `file`, as far as that can be seen from here."""
    holder = holder or read_holder(file)
    if holder is not None and holder.process_space and holder.process_space == _process_space():
        start = _process_start(holder.pid)
        return start is not None and ("" in (start, holder.process_start) or start == holder.process_start)
    if holder is not None and holder.job and holder.job == _job():
        return False
    return _recently_touched(file)


def _refusal(run: Run, file: Path, holder: Holder | None) -> str:
    if holder is None:
        return (
            f"{file} is damaged, so the process that uses {run.path} is unknown. "
            f"If no process does, remove the file; it counts as abandoned after {STALE_AFTER / 60:.0f} minutes."
        )
    if holder.process_space == _process_space():
        return (
            f"{run.path} is in use. Expected no other process on it, got {holder.describe()}. "
            "Wait until it ends, or end it first."
        )
    return (
        f"{run.path} is in use. Expected no other process on it, got {holder.describe()}. Wait until it ends. "
        f"If it has ended, remove {file}, or wait {STALE_AFTER / 60:.0f} minutes: then the lock expires."
    )


def _create(file: Path, holder: Holder) -> bool:
    """Make the lock file with its content in one step; false where one exists already."""
    claim = atomic.staging_path(file)
    text = json.dumps(dataclasses.asdict(holder), indent=2) + "\n"
    try:
        claim.write_text(text, encoding="utf-8")
        try:
            os.link(claim, file)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links: exclusive all the same, but not in one step
            try:
                with file.open("x", encoding="utf-8") as stream:
                    stream.write(text)
            except FileExistsError:
                return False
        return True
    finally:
        claim.unlink(missing_ok=True)


@contextlib.contextmanager
def _guarded(folder: Path) -> Iterator[None]:
    """Keep other processes out for a moment, where the file system can."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _is_gone(file: Path) -> bool:
    """Tell absence from a file server that does not answer at the moment."""
    try:
        file.stat()
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False


def _recently_touched(file: Path) -> bool:
    """Compare with the age of a new file, so that only the clock of the file's own server matters."""
    try:
        touched = file.stat().st_mtime
    except FileNotFoundError:
        return False
    now = time.time()
    probe = atomic.staging_path(file)
    with contextlib.suppress(OSError):  # read-only: this host's clock must do
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    return now - touched < STALE_AFTER


def _this_process() -> Holder:
    pid = os.getpid()
    return Holder(
        host=socket.gethostname(),
        pid=pid,
        process_start=_process_start(pid) or "",
        process_space=_process_space(),
        since=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        token=os.urandom(8).hex(),
        job=_job(),
    )


def _job() -> str:
    """Return the number of the job that this process belongs to, with the name of the cluster; empty outside of one."""
    job = os.environ.get("SLURM_JOB_ID", "")
    return f"{os.environ.get('SLURM_CLUSTER_NAME', '')} {job}".strip() if job else ""


def _process_start(pid: int) -> str | None:
    """Give the start of a living process in clock ticks since boot; `None` for a dead one.

    Without `/proc` (macOS), or where it hides the processes of others, a living process has the start `""`: unknown.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return "" if _is_alive(pid) else None
    state, start = fields[0], fields[19]  # fields 3 and 22 of proc(5)
    return None if state in "ZX" else start


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is there, but belongs to somebody else
        pass
    return True


def _process_space() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"host {socket.gethostname()}"
