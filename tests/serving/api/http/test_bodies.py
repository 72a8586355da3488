"""Bodies of requests, and how many bytes of them there may be."""

import asyncio

import pytest

from experiments_manager.protocol.status import Code, ServingError
from experiments_manager.serving.api.http.bodies import UNCOUNTED, Body, ByteBudget, RefusedBodyError


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
def budget():
    return ByteBudget(10 * UNCOUNTED)


def read(body, *chunks):
    asyncio.run(body.read(Stream(*chunks)))
    return body


@pytest.mark.parametrize("chunks", [[], [b"abc"], [b"a", b"b", b"c"]])
def test_a_body_is_handed_over_once(budget, chunks):
    body = read(Body(budget, 100), *chunks)
    assert len(body) == len(b"".join(chunks))
    assert body.take() == b"".join(chunks)
    assert body.take() == b""


def test_little_bodies_are_not_counted_and_large_ones_until_they_are_released(budget):
    little, large = (Body(budget, budget.limit) for _ in range(2))
    read(little, bytes(UNCOUNTED))
    assert budget.held == 0
    read(large, bytes(UNCOUNTED), bytes(UNCOUNTED))
    large.take()
    assert budget.held == UNCOUNTED
    large.put(bytes(3 * UNCOUNTED))
    assert budget.held == 2 * UNCOUNTED
    large.release()
    large.release()
    assert budget.held == 0


def test_a_body_that_is_too_much_with_others_is_refused_and_lets_go_of_nothing_of_theirs(budget):
    first, second = (Body(budget, budget.limit) for _ in range(2))
    read(first, bytes(8 * UNCOUNTED))
    with pytest.raises(RefusedBodyError, match="Try again later") as caught:
        read(second, *[bytes(UNCOUNTED)] * 5)
    assert (caught.value.code, caught.value.http_status) == (Code.RESOURCE_EXHAUSTED, 503)
    second.release()
    assert budget.held == 7 * UNCOUNTED
    with pytest.raises(RefusedBodyError):
        second.expect(5 * UNCOUNTED)
    first.release()
    second.expect(5 * UNCOUNTED)
    assert budget.held == 0


@pytest.mark.parametrize("largest", [1000, 100 * UNCOUNTED])
def test_a_body_that_is_too_large_is_refused_before_it_comes_and_while_it_does(budget, largest):
    body, least = Body(budget, largest), min(largest, budget.limit)
    for refuse in (lambda: body.expect(least + 1), lambda: read(body, bytes(least), b"x")):
        with pytest.raises(RefusedBodyError, match=f"at most {least} bytes") as caught:
            refuse()
        assert caught.value.http_status == 413
    body.expect(None)


@pytest.mark.parametrize(
    ("problem", "code"), [(ConnectionResetError("gone"), Code.CANCELLED), (ValueError("chunk"), Code.INVALID_ARGUMENT)]
)
def test_a_body_that_breaks_off_is_an_error_without_its_cause(budget, problem, code):
    body = Body(budget, 100)
    with pytest.raises(ServingError) as caught:
        read(body, b"abc", problem)
    assert caught.value.code is code
    assert caught.value.without_frames().__context__ is None
    assert problem.__traceback__ is None
