"""Clients that are slow, silent, many, or speak no proper HTTP; raw bytes over real sockets."""

import contextlib
import json
import re
import socket
import threading
import time

import pytest

from experiments_manager.serving.api.http import connection_limits, http_connection

BODY = b'{"instances": [[1, 1, 1]]}'
HEAD = b"POST /v1/models/linear:predict HTTP/1.1\r\nHost: x\r\n"
REQUEST = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = (
    HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n5\r\n"
    + BODY[:5]
    + b"\r\n%x\r\n" % len(BODY[5:])
    + BODY[5:]
    + b"\r\n0\r\n\r\n"
)
OLD = REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0")
ANSWER = {"predictions": [[3.0, 3.0, 3.0]]}


@pytest.fixture(scope="module")
def served(saved_models, running, tmp_path_factory):
    """Starts servers of the model `linear` with further flags."""
    folder = tmp_path_factory.mktemp("connections")
    saved_models.publish(saved_models.linear, folder / "linear", 1)

    @contextlib.contextmanager
    def serve(*flags):
        with running.running_server(
            [f"--model_base_path={folder / 'linear'}", "--model_name=linear", *flags]
        ) as server:
            yield server

    return serve


@pytest.fixture(scope="module")
def server(served):
    with served() as server:
        yield server


@pytest.fixture
def looked_at_often(monkeypatch):
    monkeypatch.setattr(connection_limits, "PERIOD", 0.02)
    monkeypatch.setattr(http_connection, "PERIOD", 0.02)


def connect(server):
    return socket.create_connection(("127.0.0.1", server.rest), timeout=60)


def until(condition):
    """Waits for what another thread does."""
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it did not happen within a minute")


def rest_of(client):
    """All that comes until the server hangs up."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while more := client.recv(1 << 16):
            found += more
    return found


def answers(raw):
    """Statuses and JSON of the answers in a row of bytes."""
    found = []
    while raw:
        head, _, raw = raw.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        if status == 100:
            continue
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
        assert b"application/json" in head
        found.append((status, json.loads(raw[:length])))
        raw = raw[length:]
    return found


# What is no proper HTTP


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /v1/models/linear HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /v1/models/linear HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        HEAD + b"Content-Length: -5\r\n\r\n",
        HEAD + b"Content-Length: many\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}}}}}\r\n0\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_400_in_json_and_the_connection_ends(server, raw):
    with connect(server) as client:
        client.sendall(raw)
        [(status, content)] = answers(rest_of(client))
    assert status == 400
    assert list(content) == ["error"]


def test_a_chunk_that_turns_out_to_be_none_is_told_at_once(server):
    with connect(server) as client:
        client.sendall(REQUEST + HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{'ins\r\n")
        assert b" 200 OK" in client.recv(10_000)
        client.sendall(b"no size\r\n")
        [(status, content)] = answers(rest_of(client))
    assert (status, list(content)) == (400, ["error"])


def test_names_with_line_ends_are_not_found_in_json(server):
    answer = server.post("/v1/models/m%0d%0aX:predict", {"instances": []})
    assert answer.status == 404
    assert answer.error == "Servable not found for request: Latest(m\r\nX)"


def test_headers_that_never_end_are_refused(server):
    with connect(server) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n" + (b"A: " + b"a" * 60_000 + b"\r\n") * 5)
        [(status, content)] = answers(rest_of(client))
    assert status == 431
    assert "too large" in content["error"]


def test_another_expectation_than_to_go_on_is_refused(server):
    with connect(server) as client:
        client.sendall(HEAD + b"Expect: a miracle\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        [(status, content)] = answers(rest_of(client))
    assert status == 417
    assert "Expected 100-continue" in content["error"]


def test_who_asks_whether_to_go_on_is_told_and_who_sends_too_much_is_refused_before(served):
    with served("--max_message_bytes=1000000") as server, connect(server) as client:
        client.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY))
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(BODY)
        assert b" 200 OK" in client.recv(10_000)
        client.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 1000001\r\n\r\n")
        assert client.recv(10_000).startswith(b"HTTP/1.1 413 ")


# Clients that have said all


@pytest.mark.parametrize(("raw", "count"), [(REQUEST, 1), (CHUNKED, 1), (OLD, 1), (REQUEST * 3, 3), (REQUEST * 40, 40)])
def test_a_client_that_sends_no_more_still_gets_its_answers(server, raw, count):
    with connect(server) as client:
        client.sendall(raw)
        client.shutdown(socket.SHUT_WR)
        assert answers(rest_of(client)) == [(200, ANSWER)] * count


def test_of_requests_that_a_client_breaks_off_the_whole_ones_are_answered(server):
    with connect(server) as client:
        client.sendall(REQUEST + REQUEST[:-5])
        client.shutdown(socket.SHUT_WR)
        assert answers(rest_of(client))[0] == (200, ANSWER)
    with connect(server) as client:
        client.sendall(REQUEST[:-5])
        client.shutdown(socket.SHUT_WR)
        assert rest_of(client) == b""


@pytest.fixture
def held_up(server, monkeypatch):
    """Holds answers up until `go` is set; `given_up` is set when one is cancelled."""
    import asyncio

    class HeldUp:
        began, given_up, go = threading.Event(), threading.Event(), threading.Event()

    predict = server.server.scheduler.predict

    async def held_up(lease, request, turn):
        HeldUp.began.set()
        try:
            while not HeldUp.go.is_set():
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            HeldUp.given_up.set()
            raise
        return await predict(lease, request, turn)

    monkeypatch.setattr(server.server.scheduler, "predict", held_up)
    yield HeldUp
    HeldUp.go.set()


def test_a_client_that_sends_no_more_is_waited_for_though_it_hears_nothing_for_long(
    served, held_up, server, looked_at_often
):
    with connect(server) as client:
        client.sendall(REQUEST)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"  # to see whether it is still there
        held_up.go.set()
        assert answers(rest_of(client)) == [(200, ANSWER)]


@pytest.mark.slow
@pytest.mark.parametrize("reset", [False, True])
def test_work_for_a_client_that_went_away_is_given_up(held_up, server, reset):
    client = connect(server)
    client.sendall(REQUEST)
    assert held_up.began.wait(60)
    if reset:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    assert held_up.given_up.wait(60)
    until(lambda: server.server.admission.held == server.server.admission.in_flight == 0)


# Clients that are slow


@pytest.fixture(scope="module")
def impatient(served):
    with served("--header_timeout_seconds=0.3", "--body_timeout_seconds=0.3", "--idle_timeout_seconds=0.3") as server:
        yield server


@pytest.mark.usefixtures("looked_at_often")
class TestSlowClients:
    def test_a_connection_that_says_nothing_ends(self, impatient):
        with connect(impatient) as client:
            assert rest_of(client) == b""

    def test_a_connection_between_two_requests_ends(self, impatient):
        with connect(impatient) as client:
            client.sendall(REQUEST)
            assert answers(rest_of(client)) == [(200, ANSWER)]

    @pytest.mark.parametrize("before", [b"", REQUEST])
    def test_headers_that_come_too_slowly_get_408(self, impatient, before):
        with connect(impatient) as client:
            client.sendall(before)
            if before:
                assert b" 200 OK" in client.recv(10_000)
            client.sendall(HEAD)
            [(status, content)] = answers(rest_of(client))
        assert status == 408
        assert "headers did not come in time" in content["error"]

    @pytest.mark.parametrize("raw", [REQUEST[:-5], CHUNKED[:-15], HEAD + b"Content-Length: 3000000\r\n\r\n"])
    def test_bodies_that_come_too_slowly_get_408(self, impatient, raw):
        with connect(impatient) as client:
            client.sendall(raw)
            [(status, content)] = answers(rest_of(client))
        assert status == 408
        assert "body did not come in time" in content["error"]
        assert impatient.server.admission.held == 0

    @pytest.mark.slow
    def test_an_answer_that_is_not_fetched_is_given_up(self, impatient):
        large = json.dumps({"instances": [[1, 1, 1]] * 400_000}).encode()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
            client.settimeout(60)
            client.connect(("127.0.0.1", impatient.rest))
            client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(large) + large)
            begin = client.recv(1000, socket.MSG_WAITALL)
            size = int(re.search(rb"Content-Length: (\d+)", begin)[1])
            until(lambda: not impatient.server.rest._http.connections)
            assert len(rest_of(client)) < size // 2


def test_limits_of_zero_are_none(served, looked_at_often):
    with (
        served("--header_timeout_seconds=0", "--body_timeout_seconds=0", "--idle_timeout_seconds=0") as server,
        connect(server) as silent,
        connect(server) as slow,
    ):
        slow.sendall(REQUEST[:-5])
        silent.settimeout(0.3)
        with pytest.raises(TimeoutError):
            silent.recv(1)
        slow.sendall(REQUEST[-5:])
        assert b" 200 OK" in slow.recv(10_000)


# Clients that are many


def test_where_there_are_too_many_connections_the_one_that_waits_longest_goes(served):
    with served("--max_connections=3") as server, connect(server) as first, connect(server) as second:
        first.sendall(REQUEST)
        assert b" 200 OK" in first.recv(10_000)
        with connect(server) as third, connect(server) as fourth:
            assert rest_of(second) == b""  # it never asked for anything
            for client in (fourth, first, third):
                client.sendall(REQUEST)
                assert b" 200 OK" in client.recv(10_000)


def test_where_all_connections_are_busy_a_new_one_is_turned_away(served):
    with served("--max_connections=2") as server, connect(server) as first, connect(server) as second:
        for client in (first, second):
            client.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY))
            assert b" 100 Continue" in client.recv(100)
        with connect(server) as third:
            [(status, content)] = answers(rest_of(third))
        assert status == 503
        assert "as many connections" in content["error"]
        first.sendall(BODY)
        assert b" 200 OK" in first.recv(10_000)


def test_bodies_that_are_too_much_together_get_503_and_little_ones_go_on(served):
    with served("--max_bytes_in_flight=3000000") as server, connect(server) as half, connect(server) as other:
        half.sendall(HEAD + b"Expect: 100-continue\r\nContent-Length: 2000000\r\n\r\n")
        assert b" 100 Continue" in half.recv(100)
        half.sendall(b" " * 1_900_000)
        until(lambda: server.server.admission.held > 1_800_000)
        other.sendall(HEAD + b"Content-Length: 2000000\r\n\r\n" + b" " * 2_000_000)
        assert other.recv(10_000).startswith(b"HTTP/1.1 503 ")
        assert server.post("/v1/models/linear:predict", {"instances": [[1, 1, 1]]}).json == ANSWER
        half.close()
        until(lambda: not server.server.admission.held)
        rows = {"instances": [[1, 1, 1]] * 100_000}
        assert server.post("/v1/models/linear:predict", rows).status == 200
        answer = server.post("/v1/models/linear:predict", b" " * 3_000_001)
        assert answer.status == 413
