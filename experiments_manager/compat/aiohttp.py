"""What the REST server needs of aiohttp and aiohttp has no public name for.

`tests/compat/test_aiohttp.py` tests each function; where a new release fails there, look here for what to do.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from aiohttp import web
from aiohttp.http import RawRequestMessage

HttpMessage = RawRequestMessage
"""The class of a queued message that is an HTTP request; what is no HTTP waits in the queue as something else."""


def queued_requests(connection: web.RequestHandler) -> deque[tuple[Any, Any]]:
    """Return the queue of a connection's requests that wait for their turn: (message, body), the newest last.

    Use: time limits, and the ends of connections whose clients send no more. Missing: a connection's public names tell
    nothing of pipelined requests (`RequestHandler._messages`). When a release breaks it: see what
    `RequestHandler.data_received` appends to.
    """
    return connection._messages
