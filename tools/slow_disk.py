"""A folder on a slow shared file system: each call waits, many wait at the same time, and a quota may be used up.

    python tools/slow_disk.py SOURCE MOUNTPOINT [--milliseconds 20] [--quota-file FILE] [--log FILE]

Shows the folder SOURCE at MOUNTPOINT until it gets SIGINT or SIGTERM, or until `fusermount -u MOUNTPOINT`. Nothing is
kept in the kernel between calls, neither names nor attributes, so that each `stat`, `open`, `write`, `fsync`, `rename`
of a program is a call, as on a file server that is far away. While the file `--quota-file` is there, whatever needs
space fails with EDQUOT. The log has a line for each call: the system's monotonic clock, the thread that made the call
(0 where the kernel did), the operation, the path. Needs Linux, Debian's packages `fuse3` and `libfuse2`, and Python's
`fusepy`.
"""
# ruff: noqa: D102, PTH101, PTH102, PTH104, PTH106, PTH108, PTH115, PTH208, PTH211  (calls of the system, one by one)

from __future__ import annotations

import argparse
import errno
import os
import sys
import time
from pathlib import Path
from typing import IO, Any

from fuse import FUSE, FuseOSError, Operations, fuse_get_context

NEED_SPACE = {"create", "write", "mkdir", "truncate", "symlink", "link"}


class SlowDisk(Operations):
    """Passes each call on to a folder, some time later."""

    def __init__(self, source: Path, seconds: float, quota_file: Path | None, log: IO[str] | None = None) -> None:
        self._source, self._seconds, self._quota_file, self._log = str(source), seconds, quota_file, log

    def __call__(self, operation: str, *given: Any) -> Any:
        """Wait, outside of Python's lock, then do the call."""
        if operation in ("init", "destroy"):
            return None
        if self._log is not None:
            self._log.write(f"{time.monotonic():.6f} {fuse_get_context()[2]} {operation} {given[0]}\n")
        time.sleep(self._seconds)
        if operation in NEED_SPACE and self._quota_file is not None and self._quota_file.exists():
            raise FuseOSError(errno.EDQUOT)
        return super().__call__(operation, *given)

    def _real(self, path: str) -> str:
        return self._source + path

    def access(self, path: str, amode: int) -> None:
        if not os.access(self._real(path), amode):
            raise FuseOSError(errno.EACCES)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        found = os.lstat(self._real(path)) if fh is None else os.fstat(fh)
        names = ("atime", "ctime", "gid", "mode", "mtime", "nlink", "size", "uid", "blocks")
        return {f"st_{name}": getattr(found, f"st_{name}") for name in names}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self._real(path))]

    def readlink(self, path: str) -> str:
        return os.readlink(self._real(path))

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._real(path))
        names = ("bavail", "bfree", "blocks", "bsize", "favail", "ffree", "files", "flag", "frsize", "namemax")
        return {f"f_{name}": getattr(found, f"f_{name}") for name in names}

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self._real(path), mode)

    def rmdir(self, path: str) -> None:
        os.rmdir(self._real(path))

    def unlink(self, path: str) -> None:
        os.unlink(self._real(path))

    def symlink(self, target: str, source: str) -> None:
        os.symlink(source, self._real(target))

    def link(self, target: str, source: str) -> None:
        os.link(self._real(source), self._real(target))

    def rename(self, old: str, new: str) -> None:
        os.rename(self._real(old), self._real(new))

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self._real(path), mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        os.chown(self._real(path), uid, gid)

    def utimens(self, path: str, times: tuple[float, float] | None = None) -> None:
        os.utime(self._real(path), times)

    def open(self, path: str, flags: int) -> int:
        return os.open(self._real(path), flags & ~os.O_APPEND)  # the kernel gives the place of each write

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return os.open(self._real(path), os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        os.truncate(self._real(path) if fh is None else fh, length)

    def flush(self, path: str, fh: int) -> None:
        """Do nothing: what was written is with the file server already."""

    def fsync(self, path: str, datasync: int, fh: int) -> None:
        os.fsync(fh)

    def release(self, path: str, fh: int) -> None:
        os.close(fh)


def main() -> int:
    """Show the folder until told to end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("mountpoint", type=Path)
    parser.add_argument("--milliseconds", type=float, default=20.0, help="how long each call waits (default: 20)")
    parser.add_argument("--quota-file", type=Path, help="while this file is there, the quota is used up")
    parser.add_argument("--log", type=argparse.FileType("w", 1), help="write a line for each call")
    given = parser.parse_args()
    disk = SlowDisk(given.source.resolve(), given.milliseconds / 1000, given.quota_file, given.log)
    nothing_kept = {"attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0}
    options = {"foreground": True, "big_writes": True, "max_write": 131072, "default_permissions": True}
    FUSE(disk, str(given.mountpoint), **options, **nothing_kept)
    return 0


if __name__ == "__main__":
    sys.exit(main())
