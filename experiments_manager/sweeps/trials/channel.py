"""Messages between the driver of a sweep and the processes of its trials: JSON objects, one a line."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Mapping
from typing import Any

from experiments_manager.common.jsonl import split_lines, to_line

Message = dict[str, Any]
_MOST_BYTES = 1 << 16


class Channel:
    """One end of a socket pair.

    Attributes:
        closed: Whether the other end is gone.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = b""
        self._sending = threading.Lock()
        self.closed = False

    def fileno(self) -> int:
        """Return the descriptor, for `selectors`."""
        return self._connection.fileno()

    def send(self, message: Mapping[str, Any]) -> bool:
        """Send a message; false where the other end is gone. May be called from any thread."""
        line = to_line(message)
        try:
            with self._sending:
                self._connection.sendall(line)
        except OSError:
            self.closed = True
            return False
        return True

    def receive(self) -> list[Message]:
        """Wait until something comes and return the messages that are whole; none where the other end is gone."""
        while not self.closed:
            try:
                content = self._connection.recv(_MOST_BYTES)
            except OSError:
                content = b""
            self.closed = not content
            lines, self._received = split_lines(self._received + content)
            if lines:
                return [json.loads(line) for line in lines]
        return []

    def close(self) -> None:
        """Close this end; the other one finds it gone, even where another process holds a copy of this descriptor."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
