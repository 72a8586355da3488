"""Bodies of requests, and how many bytes of them there may be."""

import asyncio

import pytest

from experiments_manager.protocol.status import Code, ServingError
from experiments_manager.serving.api.http.bodies import Body
from experiments_manager.serving.api.metrics import UNCOUNTED, Admission, Admitted, Metrics


class Stream:
    """Gives chunks, or raises what is among them."""

    def __init__(self, *chunks):
        self._chunks = [*chunks, b""]

    async def readany(self):
        chunk = self._chunks.pop(0)
        if isinstance(chunk, Exception):
            raise chunk
        return chunk


@pytest.fixture
def admission():
    return Admission(None, Metrics(), max_bytes=10 * UNCOUNTED)


def body_of(admission, largest=100 * UNCOUNTED):
    """Gives a request, and its body."""
    admitted = Admitted(admission, "REST")
    return admitted, Body(admitted, largest)


def read(body, *chunks):
    asyncio.run(body.read(Stream(*chunks)))
    return body


@pytest.mark.parametrize("chunks", [[], [b"abc"], [b"a", b"b", b"c"]])
def test_a_body_is_handed_over_once(admission, chunks):
    _, body = body_of(admission)
    read(body, *chunks)
    assert len(body) == len(b"".join(chunks))
    assert body.take() == b"".join(chunks)
    assert body.take() == b""


def test_little_bodies_are_not_counted_and_large_ones_until_the_request_ends(admission):
    (little, body), (large, large_body) = body_of(admission), body_of(admission)
    with little:
        read(body, bytes(UNCOUNTED))
        assert admission.held == 0
    with large:
        read(large_body, bytes(UNCOUNTED), bytes(UNCOUNTED))
        large_body.take()
        assert admission.held == UNCOUNTED
        large_body.put(bytes(3 * UNCOUNTED))
        assert admission.held == 2 * UNCOUNTED
    assert (admission.held, admission.freed) == (0, 2 * UNCOUNTED)


def test_a_body_that_is_too_much_with_others_is_refused_and_lets_go_of_nothing_of_theirs(admission):
    (first, body), (second, more) = body_of(admission), body_of(admission)
    with first:
        read(body, bytes(8 * UNCOUNTED))
        with pytest.raises(ServingError, match="Try again later") as caught, second:
            read(more, *[bytes(UNCOUNTED)] * 5)
        assert (caught.value.code, caught.value.http_status) == (Code.RESOURCE_EXHAUSTED, 503)
        assert admission.held == 7 * UNCOUNTED
        _, another = body_of(admission)
        with pytest.raises(ServingError):
            another.expect(5 * UNCOUNTED)
    another.expect(5 * UNCOUNTED)
    assert admission.held == 0


@pytest.mark.parametrize("largest", [1000, 100 * UNCOUNTED])
def test_a_body_that_is_too_large_is_refused_before_it_comes_and_while_it_does(admission, largest):
    _, body = body_of(admission, largest)
    least = min(largest, admission.max_bytes)
    for refuse in (lambda: body.expect(least + 1), lambda: read(body, bytes(least), b"x")):
        with pytest.raises(ServingError, match=f"at most {least} bytes") as caught:
            refuse()
        assert caught.value.http_status == 413
    body.expect(None)


@pytest.mark.parametrize(
    ("problem", "code"), [(ConnectionResetError("gone"), Code.CANCELLED), (ValueError("chunk"), Code.INVALID_ARGUMENT)]
)
def test_a_body_that_breaks_off_is_an_error_without_its_cause(admission, problem, code):
    _, body = body_of(admission)
    with pytest.raises(ServingError) as caught:
        read(body, b"abc", problem)
    assert caught.value.code is code
    assert caught.value.without_frames().__context__ is None
    assert problem.__traceback__ is None
