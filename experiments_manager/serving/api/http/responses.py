"""Answers in HTTP, and what is said before one."""

from __future__ import annotations

import re

from aiohttp import web
from aiohttp.http import HttpVersion10

from experiments_manager.protocol.status import Code, ServingError, failed_precondition
from experiments_manager.serving.api.http.bodies import RefusedBodyError
from experiments_manager.serving.api.json import responses


def error(problem: ServingError, status: int, headers: dict[str, str]) -> web.Response:
    """Make the answer to a request that failed."""
    if problem.code == Code.UNAUTHENTICATED:
        headers = {**headers, "WWW-Authenticate": "Bearer"}
    return text(responses.write_error(problem), headers, status)


def text(content: str, headers: dict[str, str], status: int = 200, kind: str = "application/json") -> web.Response:
    """Make an answer of text."""
    # As bytes: with text, aiohttp would name an encoding in the header, where TensorFlow Serving names none.
    return _Answer(body=content.encode(errors="replace"), status=status, content_type=kind, headers=headers)


class _Answer(web.Response):
    """An answer that is forgotten once it is sent; a connection keeps its last one until the next."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Send the body."""
        try:
            await super().write_eof(data)
        finally:
            self.body = None


async def go_on(request: web.BaseRequest, expected: str) -> None:
    """Let a client send its body that has asked whether it may (`Expect: 100-continue`)."""
    if expected.lower() != "100-continue":
        message = f"Expect: {expected[:40]} is not known. Expected 100-continue, or none."
        raise RefusedBodyError(Code.INVALID_ARGUMENT, 417, message)
    if request.version > HttpVersion10:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # which counts what was sent of the answer


def preflight(request: web.BaseRequest, headers: dict[str, str]) -> web.Response:
    """Answer what a browser asks before a request to another origin; the headers say whether it may go on."""
    if not re.search("https?://", request.headers.get("Origin", "")):
        raise failed_precondition("Origin header is missing in CORS preflight")
    return web.Response(headers=headers)
