"""HTTP connections, on aiohttp: listening, how long one may take, and what it gets where it sends no proper HTTP.

aiohttp sets no time limit on the headers or the body of a request, answers what is no HTTP in plain text, and hangs up
where a client has said all that it has to say (`shutdown(SHUT_WR)`). This module adds what is missing, and nothing of
any request's meaning.
"""

from __future__ import annotations

import asyncio
import http
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.http import HttpVersion10

from experiments_manager.compat.aiohttp import HttpMessage, queued_requests
from experiments_manager.protocol.status import invalid_argument
from experiments_manager.serving.api.http.bodies import BodyTimeoutError
from experiments_manager.serving.api.http.connection_limits import (
    PERIOD,
    ConnectionLimits,
    ConnectionTable,
    TransferRate,
)
from experiments_manager.serving.api.http.memory import connections_possible
from experiments_manager.serving.api.json.responses import write_error

SERVER = {"Server": "experiments_manager"}
"""What answers say of who gives them; aiohttp would tell its release and that of Python."""
_HEAD_LIMIT = 1 << 18
"""Bytes that a request may have before its body."""
_LINE_LIMIT = 1 << 16
"""Bytes of one header at most; some proxies put more than aiohttp's 8 KiB into one."""
_FOR_EVER = 10 * 365 * 86_400.0
_BACKLOG = 65_535
"""Connections that the system holds until we take them; it has a limit of its own, usually 4,096."""
_HANDSHAKE_SECONDS = 60.0
_logger = logging.getLogger(f"{__name__}.http")
_logger.setLevel(logging.CRITICAL)  # it would tell of every client that sends what is no HTTP, with a traceback
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HttpConnection(web.RequestHandler):
    """One connection. See `web.RequestHandler`.

    Args:
        server: The server that it belongs to.
        table: All connections of the server.
        limits: What it may take.
    """

    __slots__ = (
        "_answering",
        "_began",
        "_coming",
        "_ended",
        "_failed",
        "_head_bytes",
        "_line",
        "_payload",
        "_sending",
        "_table",
        "_limits",
        "_queued",
        "_request",
        "_since",
    )

    def __init__(self, server: web.Server, table: ConnectionTable, limits: ConnectionLimits) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(
            server,
            loop=loop,
            access_log=None,
            logger=_logger,
            auto_decompress=False,  # aiohttp waits for ever for the end of a compressed body that is cut short
            max_line_size=_LINE_LIMIT,
            max_field_size=_LINE_LIMIT,
            keepalive_timeout=_FOR_EVER,  # `check` looks after that
        )
        self._table, self._limits = table, limits
        self._queued = queued_requests(self)
        self._line: asyncio.Transport | None = None
        """The transport to its very end; aiohttp's own is forgotten as soon as it is told to close."""
        self._since = table.clock()
        """When what it does now began: waiting, sending a head, or being answered."""
        self._began = False
        """Whether it ever sent a whole head."""
        self._head_bytes = 0
        self._request: web.BaseRequest | None = None
        """The one that is being answered, or was the last."""
        self._answering = False
        self._coming = TransferRate(self._since)
        self._sending: TransferRate | None = None
        self._ended = False
        """Whether the client will send no more."""
        self._failed = False

    # Calls of the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, or turn it away where there are too many."""
        self._line = transport
        if self._table.admit(self):
            super().connection_made(transport)
        else:
            self.refuse(503, "This server has as many connections as it takes. Try again later.")

    def connection_lost(self, error: BaseException | None) -> None:
        """Give up whatever is done for it."""
        self._table.forget(self)
        super().connection_lost(error)
        self._request = None

    def data_received(self, data: bytes) -> None:
        """Take bytes, and look whether they are HTTP."""
        if self._failed:
            return
        super().data_received(data)
        waiting = self._queued
        if waiting and not isinstance(waiting[-1][0], HttpMessage):
            self._failed = True
            self._fail_broken_bodies()
        elif data and not waiting and not self._answering and (self._request is None or self._request.content.is_eof()):
            if not self._head_bytes:
                self._since = self._table.clock()
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_LIMIT:
                self.refuse(431, f"The headers are too large. Expected at most {_HEAD_LIMIT} bytes.")

    def _fail_broken_bodies(self) -> None:
        """Fail requests whose bodies break off; aiohttp would let them wait, with the error queued behind them."""
        broken = self._unfinished()
        for payload in broken:
            payload.set_exception(invalid_argument("The body is not what the headers say, or its framing is broken."))
        if broken:
            self._queued.pop()  # they tell it themselves

    def _unfinished(self) -> list[Any]:
        payloads = [self._request.content] if self._answering else []
        payloads += [payload for _, payload in self._queued]
        return [payload for payload in payloads if not payload.is_eof()]

    def eof_received(self) -> bool | None:
        """Note that the client sends no more, and stay open while it has answers to come."""
        is_idle = not (self._answering or self._queued)
        if is_idle or self.ssl_context is not None:  # TLS has no half of a connection
            return None
        unfinished = self._unfinished()
        for payload in unfinished:
            payload.set_exception(ConnectionResetError("The client went away"))
        if len(unfinished) == self._answering + len(self._queued):
            return None
        self._ended, self._since = True, self._table.clock()
        return True

    # Calls of aiohttp

    def begin(self, request: web.BaseRequest) -> None:
        """Note that a request is being answered, whose body may still be on its way."""
        self._request, self._answering, self._began, self._head_bytes = request, True, True, 0
        self._since = self._table.clock()
        self._coming = TransferRate(self._since)
        self._table.busy(self)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; after the last one to a client that sends no more, the connection ends."""
        if request.content.exception() is not None or self._is_over():
            resp.force_close()
        done = await super().finish_response(request, resp, start_time)
        self._answering, self._since = False, self._table.clock()
        if self._is_over():
            self.close()
        self._table.waiting(self)
        return done

    def _is_over(self) -> bool:
        return (self._failed or self._ended) and not self._queued

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP, in JSON as everything else."""
        text = " ".join((message or http.HTTPStatus(status).phrase).split())
        response = web.Response(
            body=_error_body(text), status=status, headers=dict(SERVER), content_type="application/json"
        )
        response.force_close()
        return response

    # Calls of the server

    def refuse(self, status: int, text: str) -> None:
        """Answer something that is not, or not yet, a request, and hang up."""
        body = _error_body(text)
        head = (
            f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self._line.write(head.encode() + body)
        self.hang_up()

    def hang_up(self) -> None:
        """Close the connection, after what is still to be sent."""
        self._table.busy(self)
        self.force_close()
        self._line.close()

    def check(self, now: float) -> None:
        """Look whether its time is up."""
        limits = self._limits
        if left := self._line.get_write_buffer_size():
            self._check_sending(now, left)
            return
        self._sending = None
        if self._ended:
            if self._answering or self._queued:
                self._probe_half_closed_client(now)
            else:
                self.hang_up()
        elif self._answering:
            body, patience = self._request.content, limits.body_seconds
            if patience and not body.is_eof() and self._coming.is_too_slow(now, body.total_bytes, patience):
                body.set_exception(BodyTimeoutError(patience))
        elif not self._queued:
            self._check_waiting(now, limits)

    def _check_sending(self, now: float, left: int) -> None:
        """End the connection where the client takes its answers too slowly."""
        if self._sending is None:
            self._sending = TransferRate(now)
        patience = self._limits.body_seconds
        if patience and self._sending.is_too_slow(now, -left, patience):
            self._line.abort()

    def _check_waiting(self, now: float, limits: ConnectionLimits) -> None:
        patience = limits.idle_seconds if self._began and not self._head_bytes else limits.header_seconds
        if not patience or now <= self._since + patience:
            return
        if self._head_bytes:
            self.refuse(408, f"The headers did not come in time. Expected them within {patience:g} s.")
        else:
            self.hang_up()

    def _probe_half_closed_client(self, now: float) -> None:
        """Find out whether a client that sends no more is still there to hear the answer.

        One that has said everything and one that has gone look the same until something is sent to them. Any number of
        these may come before an answer in HTTP 1.1; clients skip them.
        """
        request = self._request
        if not self._answering or request.version <= HttpVersion10 or request.writer.output_size:
            return
        if now > self._since + PERIOD:
            self._line.write(_CONTINUE)


def begin_request(message: Any, payload: Any, connection: HttpConnection, writer: Any, task: Any) -> web.BaseRequest:
    """Make a request, for aiohttp, and note that it is being answered."""
    request = web.BaseRequest(message, payload, connection, writer, task, asyncio.get_running_loop())
    connection.begin(request)
    return request


def _error_body(text: str) -> bytes:
    return write_error(text).encode(errors="replace")


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
