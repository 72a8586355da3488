"""What an HTTP request asks for, and what is said before its answer: paths, encodings, `Expect`, CORS."""

from __future__ import annotations

import dataclasses
import functools
import re
import urllib.parse
import zlib

from aiohttp import web
from aiohttp.http import HttpVersion10

from experiments_manager.protocol.status import Code, ServingError, failed_precondition, invalid_argument
from experiments_manager.serving.api.http.bodies import BodyTooLargeError
from experiments_manager.serving.models.signatures import ModelRef

_METHODS = frozenset({"predict", "classify", "regress", "metadata", ""})
_MODEL = r"/v1/models(?:/(?P<name>[^/:]+))?(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_POST = re.compile(_MODEL + r":(?P<method>classify|regress|predict)", re.IGNORECASE | re.ASCII)
_GET = re.compile(_MODEL + r"(?:/(?P<method>metadata))?", re.IGNORECASE | re.ASCII)


ALWAYS_UNPACKED = 32 * 2**20
"""Bytes that a compressed body may have once it is unpacked, however small it came."""
UNPACKED_RATIO = 16
"""Beyond these, how many times as large as it came it may become; JSON of numbers grows three to ten times."""
_SLICE = 1 << 16


@dataclasses.dataclass(frozen=True)
class Route:
    """What a path asks for."""

    ref: ModelRef
    method: str
    """`predict`, `classify`, `regress`, `metadata`, or empty for the status."""
    api: str
    """What metrics call it: its name in the path, and nothing for status and metadata."""


@functools.lru_cache(maxsize=64)
def parse_path(method: str, path: str) -> Route:
    """Read method and path of a request.

    Raises:
        ServingError: INVALID_ARGUMENT, in TensorFlow Serving's words.
    """
    pattern = {"POST": _POST, "GET": _GET}.get(method)
    match = pattern.fullmatch(path) if pattern else None
    asked = (match["method"] or "") if match else None
    if method == "GET" and asked and asked != "metadata":
        asked = ""  # as in TensorFlow Serving: `/METADATA` asks for the status
    if match is None or asked not in _METHODS:
        raise invalid_argument(f"Malformed request: {method} {path}")
    if not match["name"]:
        missing = "Missing model name in request." if method == "GET" else f"Malformed request: {method} {path}"
        raise invalid_argument(missing)
    version = int(match["version"]) if match["version"] and len(match["version"]) < 20 else None
    if match["version"] and (version is None or version >= 2**63):
        raise invalid_argument(f"Failed to convert version: {match['version'][:40]} to numeric.")
    label = urllib.parse.unquote(match["label"]) if match["label"] else None
    return Route(
        ModelRef(urllib.parse.unquote(match["name"]), version, label), asked, "" if asked == "metadata" else asked
    )


def unpacked_limit(packed: int, largest: int) -> int:
    """Return the bytes that a body of so many bytes may unpack to.

    A kilobyte of zeros is a megabyte unpacked, which as JSON takes some twenty times as much again; so what a small
    request can take is bounded by its own size, and `largest`, the limit for any body, counts as well.
    """
    return min(largest, max(ALWAYS_UNPACKED, UNPACKED_RATIO * packed))


def decompressed(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo a `Content-Encoding`, and stop where more comes out than is allowed.

    Args:
        body: What came.
        encoding: `gzip` or `deflate`.
        limit: Bytes that may come out.

    Raises:
        ServingError: INVALID_ARGUMENT for what is no such encoding; `BodyTooLargeError`.
    """
    window = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}.get(encoding)
    if window is None:
        raise invalid_argument(f"Content-Encoding {encoding[:40]} is not known. Expected gzip, deflate, or none.")
    decompressor = zlib.decompressobj(window)
    plain = bytearray()
    packed = memoryview(body)
    try:
        for start in range(0, len(body), _SLICE):
            plain += decompressor.decompress(packed[start : start + _SLICE], limit + 1 - len(plain))
            if len(plain) > limit:
                plain.clear()  # an exception keeps this frame for a while
                raise BodyTooLargeError(limit, unpacked=True)
            if decompressor.eof:
                break
    except zlib.error as error:
        plain.clear()
        raise invalid_argument(f"The body is not what its Content-Encoding says: {error}") from None
    if not decompressor.eof:
        raise invalid_argument(f"The body is not what its Content-Encoding says: {encoding} that is cut short")
    return bytes(plain)


async def go_on(request: web.BaseRequest, expected: str) -> None:
    """Let a client send its body that has asked whether it may (`Expect: 100-continue`)."""
    if expected.lower() != "100-continue":
        message = f"Expect: {expected[:40]} is not known. Expected 100-continue, or none."
        raise ServingError(Code.INVALID_ARGUMENT, message, http_status=417)
    if request.version > HttpVersion10:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # which counts what was sent of the answer


def preflight(request: web.BaseRequest, headers: dict[str, str]) -> web.Response:
    """Answer what a browser asks before a request to another origin; the headers say whether it may go on."""
    if not re.search("https?://", request.headers.get("Origin", "")):
        raise failed_precondition("Origin header is missing in CORS preflight")
    return web.Response(headers=headers)
