"""A connection to another process of a training: messages one way and the other, and a pulse that tells it is alive."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import queue
import socket
import struct
import threading
import time
from typing import Any

from experiments_manager.common.exit_codes import ExitCode

PULSE = 2.0
"""Seconds between two signs of life."""


class PeerGoneError(Exception):
    """The process at the other end is gone."""


@dataclasses.dataclass(frozen=True)
class LastWords:
    """Why a process ends.

    Attributes:
        text: What the others are to say of it.
        exit_code: What they are to end with.
    """

    text: str
    exit_code: int = ExitCode.INTERRUPTED


class Peer:
    """The process at the other end of a connection.

    Args:
        connection: A connected socket, which belongs to this object from here on.
        name: What messages call it.
    """

    def __init__(self, connection: socket.socket, name: str) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(None)
        self._socket, self.name = connection, name
        self._received: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._sending = threading.Lock()
        self._closed = threading.Event()
        self.heard = time.monotonic()
        """When it gave the last sign of life."""
        self.gone: str | None = None
        """Why it is taken for gone; `None` while it is not."""
        self.last_words: LastWords | None = None
        """What it said at its end."""
        for target in (self._receive, self._pulse):
            threading.Thread(target=target, name=f"connection to {name}", daemon=True).start()

    def send(self, message: Any) -> None:
        """Send plain data (JSON).

        Raises:
            PeerGoneError: It is gone.
        """
        self._write(json.dumps({"message": message}).encode())

    def receive(self, wait: float) -> Any:
        """Return the next message.

        Args:
            wait: Seconds to wait for it.

        Raises:
            queue.Empty: None came.
        """
        return self._received.get(timeout=wait)

    def close(self, last_words: LastWords | None = None) -> None:
        """Close the connection; the other end sees that.

        Args:
            last_words: Why this process ends, where there is something to say.
        """
        self._closed.set()
        if last_words is not None:
            with contextlib.suppress(PeerGoneError):
                self._write(json.dumps({"last_words": dataclasses.asdict(last_words)}).encode())
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _write(self, content: bytes) -> None:
        try:
            with self._sending:
                self._socket.sendall(struct.pack("!I", len(content)) + content)
        except OSError as error:
            self.gone = self.gone or "its connection is closed"
            raise PeerGoneError(self.name) from error

    def _receive(self) -> None:
        try:
            while True:
                (length,) = struct.unpack("!I", self._read(4))
                content = self._read(length)
                self.heard = time.monotonic()
                if content:
                    self._take(json.loads(content))
        except (OSError, ValueError):
            self.gone = self.gone or "its connection is closed"

    def _take(self, frame: dict[str, Any]) -> None:
        if "last_words" in frame:
            self.last_words = LastWords(**frame["last_words"])
            raise OSError("closed")
        self._received.put(frame["message"])

    def _read(self, length: int) -> bytes:
        content = bytearray()
        while len(content) < length:
            part = self._socket.recv(min(length - len(content), 1 << 20))
            if not part:
                raise OSError("closed")
            content += part
        return bytes(content)

    def _pulse(self) -> None:
        with contextlib.suppress(PeerGoneError):
            while not self._closed.wait(PULSE):
                self._write(b"")
