"""The door of a federation: all that other machines reach of a SuperLink is what SuperNodes need of it.

Flower's SuperLink offers three APIs at one port: Fleet (SuperNodes), Control (`flwr run`, registering keys) and Runtime
(its own processes). Only Fleet authenticates who asks; at Control anyone may start an app, whose code then runs on the
server and on all clients. So our SuperLink listens on the loopback address, and this gate lets Fleet through and
nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from experiments_manager.federated.deployment.addresses import Address
from experiments_manager.federated.errors import FederationError

_Receive = Callable[[], Awaitable[dict[str, Any]]]
_Send = Callable[[dict[str, Any]], Awaitable[None]]

FLEET = "/v1/fleet/"
_ALONE = frozenset((b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"te", b"host"))
"""Headers of one connection, which are not passed on (RFC 9110, section 7.6.1)."""
_START = 30.0
_CLOSING = 0.25
"""Seconds in which the loop sees that connections were cut, before it is closed itself."""
_TIMEOUT = httpx.Timeout(30.0, read=300.0)
"""Seconds to reach the SuperLink, and for its answer."""


class Gate:
    """An ASGI application that passes requests of the Fleet API on, bodies as they come.

    Args:
        target: Where the SuperLink is, as `https://127.0.0.1:PORT`.
        ca_certificate: What its certificate is signed with; None without TLS.
    """

    def __init__(self, target: str, ca_certificate: Path | None) -> None:
        trust = ssl.create_default_context(cafile=str(ca_certificate)) if ca_certificate else True
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self._client = httpx.AsyncClient(
            base_url=target, verify=trust, timeout=_TIMEOUT, limits=limits, trust_env=False
        )

    async def close(self) -> None:
        """Close the connections to the SuperLink."""
        await self._client.aclose()

    async def __call__(self, scope: dict[str, Any], receive: _Receive, send: _Send) -> None:
        """Answer one HTTP request of a SuperNode."""
        if scope["type"] != "http":
            return
        path = scope["path"]
        if scope["method"] != "POST" or not path.startswith(FLEET) or ".." in path or "%" in path:
            await _answer(send, 404)
            return
        headers = [(name, value) for name, value in scope["headers"] if name not in _ALONE]
        request = self._client.build_request("POST", path, headers=headers, content=_body(receive))
        try:
            answer = await self._client.send(request, stream=True)
        except httpx.HTTPError:
            await _answer(send, 503)
            return
        try:
            passed = [(name.lower(), value) for name, value in answer.headers.raw if name.lower() not in _ALONE]
            await send({"type": "http.response.start", "status": answer.status_code, "headers": passed})
            async for chunk in answer.aiter_raw():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await answer.aclose()


@contextlib.contextmanager
def open_gate(
    address: Address, target: str, ca_certificate: Path | None, certificate: Path | None, key: Path | None
) -> Iterator[None]:
    """Let SuperNodes through to a SuperLink while the block runs.

    Args:
        address: Where the gate listens.
        target: Where the SuperLink is.
        ca_certificate: What the certificate of the SuperLink is signed with; None without TLS.
        certificate: The certificate of the gate, with those between it and the authority; None without TLS.
        key: Its private key.

    Raises:
        FederationError: It cannot listen there, or with these files.
    """
    gate = Gate(target, ca_certificate)
    config = uvicorn.Config(
        gate,
        host=address.host,
        port=address.port,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise FederationError(
            f"The certificate {certificate} and its key {key} cannot be used: {error}. Expected two files in PEM that "
            "belong together."
        ) from error
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=_run, args=(server, gate), name="federation-gate", daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + _START
        while not server.started and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        if not server.started:
            raise FederationError(
                f"Cannot listen at {address}. Expected a free port and an address of this machine. Choose another "
                "with `--address HOST:PORT`."
            )
        yield
    finally:
        server.should_exit = True
        thread.join(10)


def _run(server: uvicorn.Server, gate: Gate) -> None:
    """Serve until told to stop; uvicorn leaves by SystemExit where it cannot listen."""

    async def serve() -> None:
        try:
            await server.serve()
        finally:
            await gate.close()
            for connection in list(server.server_state.connections):
                connection.transport.abort()  # a SuperNode keeps its connection, and TLS waits for its goodbye
            await asyncio.sleep(_CLOSING)

    with contextlib.suppress(SystemExit):
        asyncio.run(serve())


async def _body(receive: _Receive) -> AsyncIterator[bytes]:
    """Give the parts of a request's body as they come."""
    while True:
        event = await receive()
        if event["type"] != "http.request":
            raise httpx.ReadError("the SuperNode went away")
        yield event.get("body", b"")
        if not event.get("more_body"):
            return


async def _answer(send: _Send, status: int) -> None:
    """Send an HTTP answer without a body."""
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
