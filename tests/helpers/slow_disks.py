"""A folder on a slow shared file system, whose calls are known by the thread that made them."""

from __future__ import annotations

import dataclasses
import importlib.util
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.helpers.waiting import wait_until

TOOL = Path(__file__).parents[2] / "tools" / "slow_disk.py"


@dataclasses.dataclass(frozen=True)
class Call:
    """A call that reached the disk."""

    time: float
    """By `time.monotonic`, which is the same for all processes."""
    thread: int
    """As `threading.get_native_id` gives it."""
    operation: str
    path: str


@dataclasses.dataclass(frozen=True)
class SlowDisk:
    """A folder of which each call waits."""

    folder: Path
    source: Path
    """The same folder, fast."""
    quota_file: Path
    """While it exists, there is no space left in the quota."""
    log: Path

    def calls(self) -> list[Call]:
        """Return what has reached the disk by now, once it was unmounted."""
        rows = (line.rstrip("\n").split(" ", 3) for line in self.log.read_text().splitlines())
        return [Call(float(time), int(thread), operation, path) for time, thread, operation, path in rows]


@pytest.fixture
def slow_disk():
    """Mount one; call it with milliseconds. It is unmounted at the end, or by the function `unmount` that it has."""
    if not Path("/dev/fuse").exists() or not shutil.which("fusermount") or importlib.util.find_spec("fuse") is None:
        pytest.skip("needs /dev/fuse, Debian's packages fuse3 and libfuse2, and Python's fusepy")
    mounts = []
    base = Path(tempfile.mkdtemp(prefix="slow_disk"))

    def unmount():
        while mounts:
            process = mounts.pop()
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)

    def mount(milliseconds):
        for name in ("source", "shown"):
            (base / name).mkdir()
        disk = SlowDisk(base / "shown", base / "source", base / "quota_is_used_up", base / "calls.log")
        command = [sys.executable, TOOL, base / "source", disk.folder, f"--milliseconds={milliseconds}"]
        process = subprocess.Popen(
            [*map(str, command), f"--quota-file={disk.quota_file}", f"--log={disk.log}"],
            stderr=subprocess.PIPE,
        )
        mounts.append(process)
        wait_until(lambda: disk.folder.is_mount() or process.poll() is not None)
        if process.poll() is not None:
            pytest.skip(f"cannot mount: {process.stderr.read().decode()}")
        return disk

    mount.unmount = unmount
    yield mount
    unmount()
    shutil.rmtree(base)
