"""HTTP connections of strangers, on aiohttp: how many, for how long, and what they get that send no proper HTTP.

aiohttp sets no time limit on the head or the body of a request, answers what is no HTTP in plain text, and hangs up where a
client has said all that it has to say (`shutdown(SHUT_WR)`). This module adds what is missing, and nothing of any request's
meaning; it is the only one that uses a name of aiohttp that is not public: `_messages`, requests that came and wait for
their turn.
"""

from __future__ import annotations

import asyncio
import dataclasses
import http
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.http import HttpVersion10, RawRequestMessage

from experiments_manager.serving.bodies import BodyTimeoutError
from experiments_manager.serving.errors import invalid_argument
from experiments_manager.serving.json_responses import write_error

BACKLOG = 65_535
"""Connections that the system holds until we take them; it has a limit of its own, usually 4,096."""
LEAST_RATE = 1 << 14
"""Bytes a second at which a body must come, or leave, once its time is up."""
_HEAD_LIMIT = 1 << 18
"""Bytes that a request may have before its body."""
_LINE_LIMIT = 1 << 16
"""Bytes of one header at most; some proxies put more than aiohttp's 8 KiB into one."""
_PERIOD = 1.0
"""Seconds from one look at all connections to the next."""
_FOR_EVER = 10 * 365 * 86_400.0
_logger = logging.getLogger(f"{__name__}.http")
_logger.setLevel(logging.CRITICAL)  # it would tell of every client that sends what is no HTTP, with a traceback
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclasses.dataclass(frozen=True)
class ConnectionLimits:
    """What a connection may take.

    Attributes:
        header_seconds: From its beginning, or the first byte of a further request, to the end of the headers; 0 for any.
        body_seconds: For a body to come, or an answer to leave, beyond what it takes at `LEAST_RATE`; 0 for any.
        idle_seconds: Between two requests; 0 for any.
        most: Connections at once. Beyond, those that wait longest without a request are closed.
    """

    header_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 60.0
    most: int = 10_000


class Connection(web.RequestHandler):
    """One connection. See `web.RequestHandler`; made by `HttpServer`."""

    __slots__ = (
        "_answering",
        "_began",
        "_ended",
        "_failed",
        "_head_bytes",
        "_line",
        "_payload",
        "_sending",
        "_server",
        "_since",
    )

    def __init__(self, server: HttpServer, loop: asyncio.AbstractEventLoop) -> None:
        limits = server.limits
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
        self._server = server
        self._line: asyncio.Transport | None = None
        """The transport to its very end; aiohttp's own is forgotten as soon as it is told to close."""
        self._since = loop.time()
        """When what it does now began: waiting, sending a head, or being answered."""
        self._began = False
        """Whether it ever sent a whole head."""
        self._head_bytes = 0
        self._payload: Any = None
        self._answering = False
        self._sending = (0.0, 0)
        """Since when so many bytes of answers wait for the client to take them."""
        self._ended = False
        """Whether the client will send no more."""
        self._failed = False

    # Calls of the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes a connection, or turns it away where there are too many."""
        self._line = transport
        if self._server.admit(self):
            super().connection_made(transport)
        else:
            self.refuse(503, "This server has as many connections as it takes. Try again later.")

    def connection_lost(self, error: BaseException | None) -> None:
        """Gives up whatever is done for it."""
        self._server.forget(self)
        super().connection_lost(error)
        self._payload = None

    def data_received(self, data: bytes) -> None:
        """Takes bytes, and looks whether they are HTTP."""
        if self._failed:
            return
        super().data_received(data)
        waiting = self._messages
        if waiting and not isinstance(waiting[-1][0], RawRequestMessage):
            self._failed = True
            self._tell_broken_bodies()
        elif data and not waiting and not self._answering and (self._payload is None or self._payload.is_eof()):
            if not self._head_bytes:
                self._since = self._server.clock()
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_LIMIT:
                self.refuse(431, f"The headers are too large. Expected at most {_HEAD_LIMIT} bytes.")

    def _tell_broken_bodies(self) -> None:
        """Tells requests whose bodies break off; aiohttp would let them wait, with the error queued behind them."""
        broken = self._unfinished()
        for payload in broken:
            payload.set_exception(invalid_argument("The body is not what the headers say, or its framing is broken."))
        if broken:
            self._messages.pop()  # they tell it themselves

    def _unfinished(self) -> list[Any]:
        payloads = [self._payload] if self._answering else []
        payloads += [payload for _, payload in self._messages]
        return [payload for payload in payloads if not payload.is_eof()]

    def eof_received(self) -> bool | None:
        """Notes that the client sends no more, and stays open while it has answers to come."""
        if not (self._answering or self._messages) or self.ssl_context is not None:  # TLS has no half of a connection
            return None
        unfinished = self._unfinished()
        for payload in unfinished:
            payload.set_exception(ConnectionResetError("The client went away"))
        if len(unfinished) == self._answering + len(self._messages):
            return None
        self._ended, self._since = True, self._server.clock()
        return True

    # Calls of aiohttp

    def begin(self, payload: Any) -> None:
        """Notes that a request is being answered, whose body may still be on its way."""
        self._payload, self._answering, self._began, self._head_bytes = payload, True, True, 0
        self._since = self._server.clock()
        self._server.busy(self)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Sends an answer; after the last one to a client that sends no more, the connection ends."""
        broken = self._payload is not None and self._payload.exception() is not None
        if broken or self._is_over():
            resp.force_close()
        done = await super().finish_response(request, resp, start_time)
        self._answering, self._since = False, self._server.clock()
        if self._is_over():
            self.close()
        self._server.waiting(self)
        return done

    def _is_over(self) -> bool:
        return (self._failed or self._ended) and not self._messages

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answers what is no HTTP, in JSON as everything else."""
        text = " ".join((message or http.HTTPStatus(status).phrase).split())
        response = web.Response(body=_error_body(text), status=status, content_type="application/json")
        response.force_close()
        return response

    # Calls of the server

    def refuse(self, status: int, text: str) -> None:
        """Answers something that is not, or not yet, a request, and hangs up."""
        body = _error_body(text)
        head = (
            f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self._line.write(head.encode() + body)
        self.hang_up()

    def hang_up(self) -> None:
        """Closes the connection, after what is still to be sent."""
        self._server.busy(self)
        self.force_close()
        self._line.close()

    def check(self, now: float) -> None:
        """Looks whether its time is up."""
        limits = self._server.limits
        if self._line.get_write_buffer_size():
            if limits.body_seconds and self._stalls(now, limits.body_seconds):
                self._line.abort()
            return
        self._sending = (0.0, 0)
        if self._ended:
            if self._answering or self._messages:
                self._look_whether_anybody_listens(now)
            else:
                self.hang_up()
        elif self._answering:
            payload = self._payload
            if limits.body_seconds and not payload.is_eof() and self._late(now, limits.body_seconds, payload.total_bytes):
                payload.set_exception(BodyTimeoutError(limits.body_seconds))
        elif not self._messages:
            self._check_waiting(now, limits)

    def _check_waiting(self, now: float, limits: ConnectionLimits) -> None:
        patience = limits.idle_seconds if self._began and not self._head_bytes else limits.header_seconds
        if not patience or not self._late(now, patience):
            return
        if self._head_bytes:
            self.refuse(408, f"The headers did not come in time. Expected them within {patience:g} s.")
        else:
            self.hang_up()

    def _late(self, now: float, seconds: float, count: int = 0) -> bool:
        return now > self._since + seconds + count / LEAST_RATE

    def _stalls(self, now: float, seconds: float) -> bool:
        """Whether the client takes its answer too slowly."""
        left = self._line.get_write_buffer_size()
        since, before = self._sending
        if left > before:
            self._sending = (now, left)
            return False
        return now > since + seconds + (before - left) / LEAST_RATE

    def _look_whether_anybody_listens(self, now: float) -> None:
        """Finds out whether a client that sends no more is still there to hear the answer.

        One that has said everything and one that has gone look the same until something is sent to them. Any number of
        these may come before an answer in HTTP 1.1; clients skip them.
        """
        request = self._server.answered.get(self)
        if request is None or request.version <= HttpVersion10 or request.writer.output_size:
            return
        if now > self._since + _PERIOD:
            self._line.write(_CONTINUE)


class HttpServer(web.Server):
    """Makes connections and looks after them. See `web.Server`.

    Args:
        answer: Answers a request.
        limits: What a connection may take.
    """

    def __init__(
        self, answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], limits: ConnectionLimits
    ) -> None:
        super().__init__(answer, request_factory=self._request, handler_cancellation=True)
        self.limits = limits
        self.answered: dict[Connection, web.BaseRequest] = {}
        """The request that each connection is busy with."""
        self._running_loop = asyncio.get_running_loop()
        self.clock = self._running_loop.time
        self._open: dict[Connection, None] = {}
        self._strangers: dict[Connection, None] = {}
        """Connections that have not sent the head of any request, longest first."""
        self._idle: dict[Connection, None] = {}
        """Connections between two requests, longest first."""
        self._listener: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self) -> Connection:
        return Connection(self, self._running_loop)

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Begins to listen.

        Returns:
            The port, which is chosen where 0 was given.

        Raises:
            OSError: It cannot be had.
        """
        options: dict[str, Any] = {}
        if tls is not None:
            options = {"ssl": tls, "ssl_handshake_timeout": self.limits.header_seconds or _FOR_EVER}
        self._listener = await self._running_loop.create_server(self, host, port, backlog=BACKLOG, **options)
        self._timer = self._running_loop.call_later(_PERIOD, self._check_all, self._running_loop.time() + _PERIOD)
        return self._listener.sockets[0].getsockname()[1]

    async def end(self, grace: float) -> None:
        """Listens no more, and gives requests in flight so many seconds."""
        if self._listener is None:
            return
        self._listener.close()
        await asyncio.sleep(0)  # connections that the system has taken already come first
        self.pre_shutdown()
        await self.shutdown(grace / 2)  # it waits for a request twice
        self._timer.cancel()

    def _request(self, message: Any, payload: Any, connection: Connection, writer: Any, task: Any) -> web.BaseRequest:
        request = web.BaseRequest(message, payload, connection, writer, task, self._running_loop)
        connection.begin(payload)
        self.answered[connection] = request
        return request

    # Calls of connections

    def admit(self, connection: Connection) -> bool:
        """Takes a connection in, in the place of one that waits if need be."""
        if len(self._open) >= self.limits.most:
            waiting = next(iter(self._strangers or self._idle), None)
            if waiting is None:
                return False
            self._open.pop(waiting, None)
            waiting.hang_up()
        self._open[connection] = self._strangers[connection] = None
        return True

    def busy(self, connection: Connection) -> None:
        """Notes that a connection has a request, or is being closed."""
        self._strangers.pop(connection, None)
        self._idle.pop(connection, None)

    def waiting(self, connection: Connection) -> None:
        """Notes that a connection has none any more."""
        self.answered.pop(connection, None)
        if connection in self._open:
            self._idle[connection] = None

    def forget(self, connection: Connection) -> None:
        """Notes that a connection has ended."""
        self.busy(connection)
        self.answered.pop(connection, None)
        self._open.pop(connection, None)

    def _check_all(self, due: float) -> None:
        now = self._running_loop.time()
        if now < due + _PERIOD:  # else the loop was held up, and what came meanwhile is not read yet
            for connection in list(self._open):
                connection.check(now)
        self._timer = self._running_loop.call_later(_PERIOD, self._check_all, now + _PERIOD)


def _error_body(text: str) -> bytes:
    return write_error(text).encode(errors="replace")
