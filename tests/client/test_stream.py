"""A stream in which the server refuses some requests."""

import grpc
import numpy as np
import pytest

from experiments_manager.client.client import Client
from experiments_manager.client.errors import ClientError
from experiments_manager.client.stream import stream
from experiments_manager.protocol.status import Code
from tests.helpers.fake_model_server import FakeServer


@pytest.fixture
def client():
    """A client whose server refuses every third request."""
    server = FakeServer()

    def refuse(number, context):
        if number % 3 == 2:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not this one")

    server.misbehave = refuse
    with Client(server.address, "double") as client:
        yield client
    server.stop()


def numbered(count):
    return [{"x": np.full((1, 2), number, "float32")} for number in range(count)]


@pytest.mark.parametrize("in_flight", [1, 8])
def test_a_refused_request_is_told_and_the_others_are_answered(client, in_flight):
    refused, answered = [], []
    told = stream(client, numbered(30), in_flight=in_flight, rate=None, on_refused=lambda *both: refused.append(both))
    for request, outputs in told:
        assert outputs["y"][0, 0] == 2 * request["x"][0, 0]
        answered.append(request["x"][0, 0])
    assert len(answered) == 20
    assert sorted([*answered, *(request["x"][0, 0] for request, _ in refused)]) == list(range(30))
    assert {error.code for _, error in refused} == {Code.INVALID_ARGUMENT}
    assert answered == sorted(answered)


@pytest.mark.parametrize("in_flight", [1, 8])
def test_a_refused_request_ends_the_stream_where_nobody_takes_it(client, in_flight):
    with pytest.raises(ClientError, match="not this one"):
        list(stream(client, numbered(30), in_flight=in_flight, rate=None))
