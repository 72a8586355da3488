"""Messages between the driver and a job in a file that both see: JSON objects, one a line, one writer a file.

A network file system shows what was appended late and in pieces, and a process that is killed leaves half a line. So
a line counts once its end is there; a writer begins a new line where the former one was cut off; and a reader opens
the file anew at each look, which is when such file systems ask their server for changes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

from experiments_manager.common.jsonl import append_line, from_line, split_lines, to_line
from experiments_manager.sweeps.trials.channel import Message

_HOLE_SECONDS = 30.0
"""How long a reader waits for what a file system shows as zeros at first."""


class MessageWriter:
    """Appends messages to a file, which stays open from the first one on."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._descriptor: int | None = None
        self._is_cut = False
        """Whether the file ends within a line."""

    def write(self, message: Mapping[str, object]) -> None:
        """Append a message and bring it to the file server.

        Raises:
            OSError: It could not be written, or not as a whole; readers pass over a part.
        """
        if self._descriptor is None:
            self._open()
        line = b"\n" * self._is_cut + to_line(message)
        self._is_cut = True
        append_line(self._descriptor, line)
        self._is_cut = False

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> None:
        self._descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        size = os.fstat(self._descriptor).st_size
        self._is_cut = size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"


class MessageReader:
    """Reads what was added to a file since the last look."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._place = 0
        self._hole_since: float | None = None

    def read(self) -> list[Message]:
        """Return the messages that are new and whole; none where the file is not there or its server is silent."""
        content = b""
        with contextlib.suppress(OSError), self._file.open("rb") as stream:
            stream.seek(self._place)
            content = stream.read()
        found = []
        for line in split_lines(content)[0]:
            message = from_line(line)
            if message is None and b"\0" in line and not self._was_awaited():
                break
            self._hole_since = None
            self._place += len(line) + 1
            if message is not None and "kind" in message:
                found.append(message)
        return found

    def _was_awaited(self) -> bool:
        """Return whether the zeros at this place have been there for too long to become a message."""
        self._hole_since = self._hole_since or time.monotonic()
        return time.monotonic() - self._hole_since > _HOLE_SECONDS
