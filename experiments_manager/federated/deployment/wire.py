"""Messages over a Unix domain socket: a header in JSON, then bytes of Flower's own format."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

_SIZES = struct.Struct("!IQ")
_LONGEST_HEADER = 64 * 2**20


class Disconnected(Exception):
    """The other side closed the connection, or died."""


def send(connection: socket.socket, header: dict[str, Any], parts: Sequence[bytes] = ()) -> None:
    """Send one frame: a header, and any number of parts."""
    told = json.dumps({**header, "parts": [len(part) for part in parts]}).encode()
    try:
        connection.sendall(_SIZES.pack(len(told), sum(map(len, parts))) + told)
        for part in parts:
            connection.sendall(part)
    except OSError as error:
        raise Disconnected(str(error)) from error


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[bytes]]:
    """Receive one frame and return its header and its parts.

    Raises:
        Disconnected: The other side ended before the frame did.
    """
    size, rest = _SIZES.unpack(_read(connection, _SIZES.size))
    if size > _LONGEST_HEADER:
        raise Disconnected(f"a header of {size} bytes came. Expected at most {_LONGEST_HEADER}.")
    header = json.loads(bytes(_read(connection, size)))
    sizes = header.pop("parts")
    if sum(sizes) != rest:
        raise Disconnected(f"parts of {sum(sizes)} bytes were announced. Expected {rest}.")
    return header, [bytes(_read(connection, part)) for part in sizes]


def _read(connection: socket.socket, size: int) -> bytearray:
    """Read exactly so many bytes."""
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        try:
            count = connection.recv_into(view[at:])
        except OSError as error:
            raise Disconnected(str(error)) from error
        if not count:
            raise Disconnected(f"it was closed after {at} of {size} bytes")
        at += count
    return data
