"""All connections of a server: how many there may be, which of them goes if there are too many, and a look at each."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Protocol

LEAST_RATE = 1 << 14
"""Bytes a second at which a body that takes longer than its time must come, or leave."""
PERIOD = 1.0
"""Seconds from one look at all connections to the next."""


@dataclasses.dataclass(frozen=True)
class ConnectionLimits:
    """What connections may take.

    Attributes:
        header_seconds: From the beginning of one, or of a further request, to the end of the headers; 0 for any.
        body_seconds: For a body to come, or an answer to leave; 0 for any. One that takes longer must keep to
            `LEAST_RATE` over each such time.
        idle_seconds: Between two requests; 0 for any.
        most: Connections at once. Beyond, the one that has waited longest for a request is closed.
    """

    header_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 60.0
    most: int = 10_000


class TransferRate:
    """Whether bytes come, or leave, quickly enough.

    Args:
        now: When they begin.
    """

    __slots__ = ("_count", "_since")

    def __init__(self, now: float) -> None:
        self._since, self._count = now, 0

    def is_too_slow(self, now: float, count: int, seconds: float) -> bool:
        """Look at them.

        Args:
            now: The time.
            count: Bytes so far; fewer than the last time where others have begun.
            seconds: Over which they must keep to the least rate.
        """
        if count < self._count:
            self._since, self._count = now, count
        if now <= self._since + seconds:
            return False
        slow = count - self._count < LEAST_RATE * seconds
        self._since, self._count = now, count
        return slow


class OpenConnection(Protocol):
    """An HTTP connection that can be closed when its time is up."""

    def hang_up(self) -> None:
        """Close the connection at once."""

    def check(self, now: float) -> None:
        """Close it if its time is up."""


class ConnectionTable:
    """Connections that are open. Belongs to the running event loop.

    Args:
        most: How many there may be.
    """

    def __init__(self, most: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.clock = self._loop.time
        self._most = most
        self._open: dict[OpenConnection, None] = {}
        self._new: dict[OpenConnection, None] = {}
        """Connections that have not sent the headers of any request, oldest first."""
        self._idle: dict[OpenConnection, None] = {}
        """Connections between two requests, oldest first."""
        self._timer: asyncio.TimerHandle | None = None

    def admit(self, connection: OpenConnection) -> bool:
        """Take a connection in, in the place of one that waits if need be; tell whether there was room."""
        if len(self._open) >= self._most:
            waiting = next(iter(self._new or self._idle), None)
            if waiting is None:
                return False
            self.forget(waiting)
            waiting.hang_up()
        self._open[connection] = self._new[connection] = None
        return True

    def busy(self, connection: OpenConnection) -> None:
        """Note that a connection has a request, or is being closed."""
        self._new.pop(connection, None)
        self._idle.pop(connection, None)

    def waiting(self, connection: OpenConnection) -> None:
        """Note that a connection has no request any more."""
        if connection in self._open:
            self._idle[connection] = None

    def forget(self, connection: OpenConnection) -> None:
        """Note that a connection has ended."""
        self.busy(connection)
        self._open.pop(connection, None)

    def watch(self) -> None:
        """Begin to look at all connections again and again."""
        self._timer = self._loop.call_later(PERIOD, self._check_all, self.clock() + PERIOD)

    def end(self) -> None:
        """End looking for connections that wait too long."""
        if self._timer is not None:
            self._timer.cancel()

    def _check_all(self, due: float) -> None:
        now = self.clock()
        if now < due + PERIOD:  # else the loop was held up, and what came meanwhile is not read yet
            for connection in list(self._open):
                connection.check(now)
        self.watch()
