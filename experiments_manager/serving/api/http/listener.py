"""Listening for HTTP: makes `HttpConnection`s, and hands their requests on."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from experiments_manager.serving.api.http.connection import HttpConnection, begin_request
from experiments_manager.serving.api.http.connection_limits import ConnectionLimits, ConnectionTable
from experiments_manager.serving.api.http.memory import connections_possible

_BACKLOG = 65_535
"""Connections that the system holds until we take them; it has a limit of its own, usually 4,096."""
_HANDSHAKE_SECONDS = 60.0


class HttpServer(web.Server):
    """Makes connections. See `web.Server`; belongs to the running event loop.

    Args:
        answer: Answers a request; it is cancelled where the client goes away.
        limits: What connections may take.
    """

    def __init__(
        self, answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], limits: ConnectionLimits
    ) -> None:
        super().__init__(answer, request_factory=begin_request, handler_cancellation=True)
        self._limits, self._table = limits, ConnectionTable(connections_possible(limits.most))
        self._listener: asyncio.Server | None = None

    def __call__(self) -> HttpConnection:
        """Make a connection, for the event loop."""
        return HttpConnection(self, self._table, self._limits)

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Begin to listen.

        Returns:
            The port, which is chosen where 0 was given.

        Raises:
            OSError: It cannot be had.
        """
        options: dict[str, Any] = {}
        if tls is not None:
            options = {"ssl": tls, "ssl_handshake_timeout": self._limits.header_seconds or _HANDSHAKE_SECONDS}
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self, host, port, backlog=_BACKLOG, **options)
        self._table.watch()
        return self._listener.sockets[0].getsockname()[1]

    async def end(self, grace: float) -> None:
        """Listen no more, and give requests in flight so many seconds."""
        if self._listener is None:
            return
        self._listener.close()
        await asyncio.sleep(0)  # connections that the system has taken already come first
        self.pre_shutdown()
        await self.shutdown(grace / 2)  # it waits for a request twice
        self._table.end()
