"""Bodies of requests while they are in memory: how large one may be, and how much all of them may take together."""

from __future__ import annotations

from typing import Protocol

from experiments_manager.protocol.status import Code, ServingError, invalid_argument

UNCOUNTED = 1 << 16
"""Bytes of each request that are not counted: little requests are answered, however many large ones are under way."""


class RefusedBodyError(ServingError):
    """A body is not taken.

    Attributes:
        http_status: What HTTP answers; by gRPC, the code counts.
    """

    def __init__(self, code: Code, http_status: int, message: str) -> None:
        super().__init__(code, message)
        self.http_status = http_status


class BodyTooLargeError(RefusedBodyError):
    """A body has, or would have, more bytes than are taken."""

    def __init__(self, limit: int, *, unpacked: bool = False) -> None:
        text = f"The body is too large. Expected at most {limit} bytes."
        if unpacked:
            text = (
                f"The body is too large once it is unpacked. Expected at most {limit} bytes. "
                "Send fewer samples at once, or send it without Content-Encoding."
            )
        super().__init__(Code.RESOURCE_EXHAUSTED, 413, text)


class BodyTimeoutError(RefusedBodyError):
    """A body did not come in time."""

    def __init__(self, seconds: float) -> None:
        text = f"The body did not come in time. Expected it within {seconds:g} s, or 16 KiB a second where it is large."
        super().__init__(Code.DEADLINE_EXCEEDED, 408, text)


class Stream(Protocol):
    """Where a body comes from."""

    async def readany(self) -> bytes:
        """Wait for some bytes; none at the end."""


class ByteBudget:
    """Counts the bytes of requests that are being read or answered. Belongs to one event loop.

    Args:
        limit: How many there may be at once.

    Attributes:
        freed: Bytes of requests and answers that were let go of since somebody looked, so that memory may be tidied.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.held, self.freed = limit, 0, 0

    def take(self, count: int) -> None:
        """Count bytes in.

        Raises:
            RefusedBodyError: RESOURCE_EXHAUSTED where there would be too many.
        """
        self.check(count)
        self.held += count

    def check(self, count: int) -> None:
        """Look whether so many bytes may come in.

        Raises:
            RefusedBodyError: RESOURCE_EXHAUSTED where there would be too many.
        """
        if self.held + count > self.limit:
            raise RefusedBodyError(
                Code.RESOURCE_EXHAUSTED,
                503,
                f"Requests of {self.held} bytes are being read or answered, and this server takes {self.limit} at "
                "once. Try again later.",
            )

    def give_back(self, count: int) -> None:
        """Count bytes out."""
        self.held -= count
        self.freed += count


class Body:
    """The body of one request, which is counted until it is released.

    It alone holds the bytes, so that an exception that is kept, with the frames it came through, keeps none of them.

    Args:
        budget: Where it is counted.
        largest: Bytes that it may have.
    """

    __slots__ = ("_budget", "_counted", "_data", "_largest")

    def __init__(self, budget: ByteBudget, largest: int) -> None:
        self._budget, self._largest = budget, min(largest, budget.limit)
        self._counted = 0
        self._data: bytes | bytearray = b""

    def __len__(self) -> int:
        return len(self._data)

    def expect(self, size: int | None) -> None:
        """Refuse a body before it comes, where its size was told.

        Raises:
            RefusedBodyError: It is too large, or there is no room for it now.
        """
        if size is not None and size > self._largest:
            raise BodyTooLargeError(self._largest)
        if size is not None and size > UNCOUNTED:
            self._budget.check(size)  # it is counted as it comes: what was only told takes no memory

    async def read(self, stream: Stream) -> None:
        """Read it to its end.

        Raises:
            RefusedBodyError: It is too large, too slow, or too much together with others.
            ServingError: INVALID_ARGUMENT where its framing is broken; CANCELLED where the client went away.
        """
        try:
            while chunk := await stream.readany():
                self._count(len(self._data) + len(chunk))
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

    def _count(self, size: int) -> None:
        if size > self._largest:
            raise BodyTooLargeError(self._largest)
        self.count(size)

    def count(self, size: int) -> None:
        """Count it as one of so many bytes from now on.

        Raises:
            RefusedBodyError: RESOURCE_EXHAUSTED where that is too much together with others.
        """
        counted = max(0, size - UNCOUNTED)
        if counted > self._counted:
            self._budget.take(counted - self._counted)
            self._counted = counted

    def take(self) -> bytes:
        """Hand the bytes over and keep none; they stay counted."""
        data, self._data = self._data, b""
        return bytes(data)

    def put(self, data: bytes) -> None:
        """Put other bytes, unpacked ones, in the place of those that came.

        Raises:
            RefusedBodyError: RESOURCE_EXHAUSTED where that is too much together with others.
        """
        self.count(len(data))
        self._data = data

    def release(self) -> None:
        """Let go of the bytes; the request is answered, or given up."""
        self._data = b""
        self._budget.give_back(self._counted)
        self._counted = 0
