"""Calls of the user's code in a dry run, which leaves nothing behind: what would write, start or send is refused."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_REFUSED = frozenset({
    "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod", "shutil.rmtree",
    "shutil.move", "shutil.copyfile", "subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn",
    "socket.connect", "socket.bind", "os.kill",
})  # fmt: skip
"""Audit events of Python's that change something outside of the process."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_ALLOWED = threading.local()
_INSTALLED: list[bool] = []


class HeldWriteError(BaseException):
    """Code was about to change something outside of the process; not for `except Exception` to catch."""


@contextlib.contextmanager
def held_writes(folder: Path) -> Iterator[None]:
    """Inside, code of this thread may read, and write below a folder; anything else raises `HeldWriteError`.

    Python tells of what it opens (PEP 578); what libraries open in C, such as HDF5's, is not seen.
    """
    if not _INSTALLED:
        sys.addaudithook(_look)  # there is no way to take it away again; it does nothing outside of such a block
        _INSTALLED.append(True)
    before, _ALLOWED.folder = getattr(_ALLOWED, "folder", None), os.path.realpath(folder)
    try:
        yield
    finally:
        _ALLOWED.folder = before


def _look(event: str, arguments: tuple[Any, ...]) -> None:
    folder = getattr(_ALLOWED, "folder", None)
    if folder is None:
        return
    if event == "open":
        path, mode, flags = arguments
        writes = any(sign in mode for sign in "wax+") if isinstance(mode, str) else bool((flags or 0) & _WRITING)
        if not writes or isinstance(path, int) or _may(path, folder):
            return
    elif event == "os.mkdir":
        if _may(arguments[0], folder) or Path(arguments[0]).is_dir():
            return
    elif event not in _REFUSED or (arguments and _may(arguments[0], folder)):
        return
    what = arguments[0] if arguments else ""
    raise HeldWriteError(f"{event} {os.fsdecode(what) if isinstance(what, (str, bytes, os.PathLike)) else what}")


def _may(path: Any, folder: str) -> bool:
    if not isinstance(path, (str, bytes, os.PathLike)):
        return False
    place = os.path.realpath(os.fsdecode(path))
    return place.startswith((folder + os.sep, "/dev/")) or place == folder or "__pycache__" in place
