"""Bodies of requests while they are in memory, and how large one may be."""

from __future__ import annotations

from typing import Protocol

from experiments_manager.protocol.status import Code, ServingError, invalid_argument
from experiments_manager.serving.api.metrics import Admitted


class BodyTooLargeError(ServingError):
    """A body has, or would have, more bytes than are taken."""

    def __init__(self, limit: int, *, unpacked: bool = False) -> None:
        text = f"The body is too large. Expected at most {limit} bytes."
        if unpacked:
            text = (
                f"The body is too large once it is unpacked. Expected at most {limit} bytes. "
                "Send fewer samples at once, or send it without Content-Encoding."
            )
        super().__init__(Code.RESOURCE_EXHAUSTED, text, http_status=413)


class BodyTimeoutError(ServingError):
    """A body did not come in time."""

    def __init__(self, seconds: float) -> None:
        text = f"The body did not come in time. Expected it within {seconds:g} s, or 16 KiB a second where it is large."
        super().__init__(Code.DEADLINE_EXCEEDED, text, http_status=408)


class Stream(Protocol):
    """Where a body comes from."""

    async def readany(self) -> bytes:
        """Wait for some bytes; none at the end."""


class Body:
    """The body of one request.

    It alone holds the bytes, so that an exception that is kept, with the frames it came through, keeps none of them.

    Args:
        admitted: Where its bytes are counted.
        largest: Bytes that it may have.
    """

    __slots__ = ("_admitted", "_data", "_largest")

    def __init__(self, admitted: Admitted, largest: int) -> None:
        self._admitted, self._largest = admitted, min(largest, admitted.max_bytes)
        self._data: bytes | bytearray = b""

    def __len__(self) -> int:
        return len(self._data)

    def expect(self, size: int | None) -> None:
        """Refuse a body before it comes, where its size was told.

        Raises:
            ServingError: It is too large, or there is no room for it now.
        """
        if size is not None and size > self._largest:
            raise BodyTooLargeError(self._largest)
        if size is not None:
            self._admitted.expect(size)  # it is counted as it comes: what was only told takes no memory

    async def read(self, stream: Stream) -> None:
        """Read it to its end.

        Raises:
            ServingError: It is too large, too slow, or too much together with others; INVALID_ARGUMENT where its
                framing is broken; CANCELLED where the client went away.
        """
        try:
            while chunk := await stream.readany():
                self._hold(len(self._data) + len(chunk))
                if not self._data:
                    self._data = chunk
                elif isinstance(self._data, bytearray):
                    self._data += chunk
                else:
                    self._data = bytearray(self._data)
                    self._data += chunk
        except ServingError:
            raise
        except ConnectionError:
            raise ServingError(Code.CANCELLED, "The client went away.") from None
        except Exception as error:
            raise invalid_argument(f"The body cannot be read: {error}") from None

    def _hold(self, size: int) -> None:
        if size > self._largest:
            raise BodyTooLargeError(self._largest)
        self._admitted.hold(size)

    def take(self) -> bytes:
        """Hand the bytes over and keep none; they stay counted."""
        data, self._data = self._data, b""
        return bytes(data)

    def put(self, data: bytes) -> None:
        """Put other bytes, unpacked ones, in the place of those that came.

        Raises:
            ServingError: RESOURCE_EXHAUSTED where that is too much together with others.
        """
        self._admitted.hold(len(data))
        self._data = data

    def clear(self) -> None:
        """Let go of the bytes; the request is answered, or given up."""
        self._data = b""
