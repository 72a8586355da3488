"""Does aiohttp still have what it has no public name for? Each failure names the place to look at."""

import asyncio
import inspect

import pytest
from aiohttp import web

from experiments_manager.compat.aiohttp import HttpMessage, queued_requests
from experiments_manager.serving.api.http.http_connection import HttpConnection

SEE = "aiohttp moved or changed {}; see experiments_manager/compat/aiohttp.py"
HEAD = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"


def queue_after(data):
    """Gives what waits in a connection that got these bytes and had no time to answer."""

    async def get():
        connection = web.Server(lambda request: web.Response())()
        connection.connection_made(asyncio.Transport())
        connection.data_received(data)
        return list(queued_requests(connection))

    return asyncio.run(get())


def test_requests_wait_in_the_queue_with_their_bodies():
    queue = queue_after(HEAD + HEAD)
    assert [(message.method, isinstance(message, HttpMessage)) for message, _ in queue] == [("GET", True)] * 2, (
        SEE.format("RequestHandler._messages")
    )
    assert all(body.is_eof() for _, body in queue), SEE.format("the queue's second part, the body")


def test_what_is_no_http_waits_in_the_queue_as_something_else():
    queue = queue_after(HEAD + b"\x00\x01 no HTTP\r\n\r\n")
    assert not isinstance(queue[-1][0], HttpMessage), SEE.format("how RequestHandler queues what is no HTTP")


@pytest.mark.parametrize(
    ("method", "parameters"),
    {
        "connection_made": ["transport"],
        "connection_lost": ["exc"],
        "data_received": ["data"],
        "finish_response": ["request", "resp", "start_time"],
        "handle_error": ["request", "status", "exc", "message"],
        "force_close": [],
    }.items(),
)
def test_methods_that_a_connection_overrides_are_called_as_they_were(method, parameters):
    found = list(inspect.signature(getattr(web.RequestHandler, method)).parameters)[1:]
    assert found == parameters, SEE.format(f"RequestHandler.{method}")


def test_attributes_of_a_connection_are_none_of_aiohttps_own():
    own = set(HttpConnection.__slots__)
    theirs = {name for kind in web.RequestHandler.__mro__ for name in (*vars(kind), *getattr(kind, "__slots__", ()))}
    assert own & theirs == set(), "rename these in serving/api/http/http_connection.py: aiohttp uses them itself"
