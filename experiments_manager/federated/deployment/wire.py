"""Messages over a Unix domain socket: a header in JSON, then bytes of Flower's own format; never a pickle."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

_LONGEST_HEADER = 64 * 2**20


class Disconnected(Exception):
    """The other side closed the connection, or died."""


def accept(listener: socket.socket) -> Connection:
    """Return the next connection that somebody makes.

    Raises:
        TimeoutError: Nobody did, in the time that the listener has.
    """
    connection, _ = listener.accept()
    return Connection(connection.detach())


def send(connection: Connection, header: dict[str, Any], parts: Sequence[bytes] = ()) -> None:
    """Send one message: a header, and any number of parts.

    Raises:
        Disconnected: The other side ended before.
    """
    try:
        connection.send_bytes(json.dumps({**header, "parts": len(parts)}).encode())
        for part in parts:
            connection.send_bytes(part)
    except OSError as error:
        raise Disconnected(str(error)) from error


def receive(connection: Connection) -> tuple[dict[str, Any], list[bytes]]:
    """Receive one message and return its header and its parts.

    Raises:
        Disconnected: The other side ended before the message did, or sends something else.
    """
    try:
        header = json.loads(connection.recv_bytes(_LONGEST_HEADER))
        return header, [connection.recv_bytes() for _ in range(header.pop("parts"))]
    except EOFError as error:
        raise Disconnected("it was closed") from error
    except (OSError, ValueError) as error:
        raise Disconnected(str(error)) from error
