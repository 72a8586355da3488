"""The client, against a server that fails as it is told."""

from __future__ import annotations

import contextlib
import itertools
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from experiments_manager import Client
from experiments_manager.client import stream
from experiments_manager.client.client import is_not_found, with_versions
from experiments_manager.client.errors import ClientError, ServerGoneError
from experiments_manager.protocol import messages
from experiments_manager.protocol.status import Code
from tests.helpers import fake_model_server

SCRIPT = Path(fake_model_server.__file__)


@pytest.fixture
def server() -> Iterator[Any]:
    server = fake_model_server.FakeServer()
    yield server
    server.stop()


@pytest.fixture
def connect() -> Iterator[Any]:
    clients = []

    def make(address: str, **options: Any) -> Client:
        clients.append(Client(address, "double", **{"patience": 120.0, "timeout": 120.0} | options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def numbered(count: int | None = None) -> Iterator[dict[str, np.ndarray]]:
    for number in itertools.count() if count is None else range(count):
        yield {"x": np.array([[number, 1]], np.float32)}


def fail_with(code: grpc.StatusCode, details: str, numbers: range) -> Any:
    def misbehave(number: int, context: grpc.ServicerContext) -> None:
        if number in numbers:
            context.abort(code, details)

    return misbehave


def test_a_prediction_gives_arrays_by_name_and_the_version_that_answered(server: Any, connect: Any) -> None:
    server.version = 7
    outputs = connect(server.address).predict({"x": np.array([[1, 2], [3, 4]], np.float32)})
    assert outputs["y"].tolist() == [[2, 4], [6, 8]]
    assert outputs["y"].dtype == np.float32
    assert outputs["name"].tolist() == [b"row 1", b"row 3"]
    assert outputs.version == 7
    assert 0 < outputs.seconds < 10
    outputs["y"] += 1  # the arrays are the caller's own


def test_a_model_with_one_input_takes_an_array_alone_and_lists(server: Any, connect: Any) -> None:
    assert connect(server.address).predict([[1, 2]])["y"].tolist() == [[2, 4]]


def test_the_model_tells_its_inputs_and_outputs(server: Any, connect: Any) -> None:
    info = connect(server.address).info()
    assert (info.name, info.version) == ("double", 1)
    assert {name: str(tensor) for name, tensor in info.inputs.items()} == {"x": "float32 [any, 2]"}
    outputs = {name: str(tensor) for name, tensor in info.outputs.items()}
    assert outputs == {"name": "string [any]", "y": "float32 [any, 2]"}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"X": [[1, 2]]}, r"no input 'X'. Expected x \(float32 \[any, 2\]\); got X"),
        ({"xs": [[1, 2]]}, "Did you mean 'x'"),
        ({}, r"input 'x' is missing. Expected x \(float32"),
        ({"x": [["a"]]}, r"Input x: expected float32 \[any, 2\], got text \[1, 1\]. Convert"),
        ({"x": [[b"a"]]}, r"got bytes \[1, 1\]"),
        ({"x": [[None, 1]]}, r"got Python objects \[1, 2\]"),
        ({"x": np.zeros((1, 2), ">c16")}, r"got complex128 \[1, 2\]"),
        ({"x": [[1, 2], [3]]}, r"Input x: expected float32 \[any, 2\], got an invalid array: .* inhomogeneous"),
    ],
)
def test_wrong_inputs_are_refused_before_they_are_sent(inputs: Any, message: str, server: Any, connect: Any) -> None:
    with pytest.raises(ClientError, match=message):
        connect(server.address).predict(inputs)
    assert server.count == 0


def test_inputs_that_changed_with_a_version_are_listed(server: Any, connect: Any) -> None:
    client = connect(server.address)
    client.predict([[1, 2]])
    server.input_name, server.version = "point", 2
    with pytest.raises(ClientError, match=r"INVALID_ARGUMENT: .* Inputs of version 2: point \(float32 \[any, 2\]\)"):
        client.predict({"x": [[1, 2]]})
    assert client.predict({"point": [[1, 2]]})["y"].tolist() == [[2, 4]]


def test_a_model_or_signature_that_is_not_there_is_named(server: Any, connect: Any) -> None:
    with (
        Client(server.address, "other") as client,
        pytest.raises(ClientError, match=r"NOT_FOUND: .*: Latest\(other\)\. Expected the name of a model"),
    ):
        client.predict([[1, 2]])
    with pytest.raises(ClientError, match=r"has no signature 'classify'\. Expected one of serving_default\.$"):
        connect(server.address, signature="classify").predict([[1, 2]])


def test_answers_come_in_order_with_a_bounded_number_in_flight(server: Any, connect: Any) -> None:
    server.misbehave = lambda number, context: time.sleep(0.02 if number % 5 == 0 else 0.002)
    answered = list(connect(server.address).stream(numbered(60), in_flight=4))
    assert [outputs["y"][0, 0] for _, outputs in answered] == [2 * number for number in range(60)]
    assert [request["x"][0, 0] for request, _ in answered] == list(range(60))
    assert 2 <= server.most_at_once <= 4


def test_one_in_flight_reads_the_next_request_after_the_answer_to_the_last(server: Any, connect: Any) -> None:
    last: list[float] = [1.0]

    def requests() -> Iterator[Any]:
        for _ in range(5):
            yield [[last[-1], 0]]

    for _, outputs in connect(server.address).stream(requests(), in_flight=1):
        last.append(float(outputs["y"][0, 0]))
    assert last == [1, 2, 4, 8, 16, 32]


def test_a_slow_source_does_not_keep_answers_back(server: Any, connect: Any) -> None:
    answered = threading.Event()

    def requests() -> Iterator[Any]:
        yield [[1, 2]]
        assert answered.wait(20)  # comes only if the first answer is handed over before the second request is read
        yield [[3, 4]]

    seen = []
    for _, outputs in connect(server.address).stream(requests()):
        seen.append(outputs["y"][0, 0])
        answered.set()
    assert seen == [2, 6]


def test_no_more_is_read_from_the_source_than_fits_in_flight(server: Any, connect: Any) -> None:
    read = []

    def requests() -> Iterator[Any]:
        for request in numbered():
            read.append(request)
            yield request

    stream = connect(server.address).stream(requests(), in_flight=4)
    for _ in range(10):
        next(stream)
    stream.close()
    assert 10 <= len(read) <= 14


def test_a_stream_that_is_left_closes_its_source(server: Any, connect: Any) -> None:
    closed = threading.Event()

    def requests() -> Iterator[Any]:
        try:
            yield from numbered()
        finally:
            closed.set()

    stream = connect(server.address).stream(requests())
    next(stream)
    stream.close()
    assert closed.wait(20)


@pytest.mark.parametrize("in_flight", [1, 8])
def test_an_error_in_the_source_comes_after_the_answers_before_it(in_flight: int, server: Any, connect: Any) -> None:
    def requests() -> Iterator[Any]:
        yield from numbered(3)
        raise KeyError("camera")

    seen = []
    with pytest.raises(KeyError, match="camera"):
        for _, outputs in connect(server.address).stream(requests(), in_flight=in_flight):
            seen.append(outputs["y"][0, 0])
    assert seen == [0, 2, 4]


def test_the_rate_is_kept(server: Any, connect: Any) -> None:
    start = time.monotonic()
    assert len(list(connect(server.address).stream(numbered(41), rate=100))) == 41
    assert time.monotonic() - start >= 0.38


@pytest.mark.parametrize("lateness", [0.0, 0.004])
def test_waiting_for_the_rate_takes_no_longer_than_it_must(lateness: float, monkeypatch: Any) -> None:
    now = 1000.0

    def wait(seconds: float) -> None:
        nonlocal now
        now += seconds + lateness

    monkeypatch.setattr(stream, "time", types.SimpleNamespace(monotonic=lambda: now))
    pacer = stream.RateLimiter(100)
    monkeypatch.setattr(pacer, "_stopped", types.SimpleNamespace(wait=wait))
    for _ in range(41):
        pacer.wait()
    assert 0.38 <= now - 1000 <= 0.4 + lateness  # to wake up late once more or less is made up for


@pytest.mark.parametrize("options", [{"in_flight": 0}, {"rate": 0}, {"rate": -1}, {"rate": float("nan")}])
def test_senseless_limits_are_refused(options: Any, server: Any, connect: Any) -> None:
    with pytest.raises(ValueError, match="Expected"):
        connect(server.address).stream(numbered(1), **options)


@pytest.mark.slow
@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
@pytest.mark.parametrize("in_flight", [1, 16])
def test_requests_that_were_turned_away_are_sent_again(
    code: grpc.StatusCode, in_flight: int, server: Any, connect: Any
) -> None:
    server.misbehave = fail_with(code, "try later", range(20, 26))
    client = connect(server.address)
    answers = [outputs["y"][0, 0] for _, outputs in client.stream(numbered(100), in_flight=in_flight)]
    assert answers == [2 * number for number in range(100)]
    assert client.retries == 6
    assert sorted(server.seen) == list(range(100))


def test_a_server_that_stays_away_is_one_clear_error(free_port: Any, connect: Any, caplog: Any) -> None:
    port = free_port()
    client = connect(f"127.0.0.1:{port}", patience=0.3)
    with pytest.raises(ServerGoneError) as raised:
        client.predict([[1, 2]])
    message = str(raised.value)
    assert message.startswith(f"The model server at 127.0.0.1:{port} cannot be reached, for 0.3 s (")
    assert message.endswith("Expected a model server at that address. Start one: experiments_manager serve RUN")
    assert "\n" not in message
    assert [record.message for record in caplog.records if "Trying again for 0.3 s" in record.message]


@pytest.mark.parametrize(
    "address", ["localhost", "http://localhost:9000", "localhost:nine", ":9000", "", "localhost:65536"]
)
def test_what_is_no_address_is_refused_at_once(address: str) -> None:
    with pytest.raises(ClientError, match="^invalid address of a model server: .* Expected HOST:PORT"):
        Client(address, "double")


@pytest.fixture
def rest_port() -> Iterator[int]:
    """A port at 127.0.0.1 alone, where HTTP 1 is spoken."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listening:

        def answer_as_http_1() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with listening.accept()[0] as caller, contextlib.suppress(ConnectionError):
                        caller.recv(1024)
                        caller.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                        while caller.recv(1024):  # what is left unread would take the answer away again
                            pass

        answering = threading.Thread(target=answer_as_http_1, daemon=True)
        answering.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        answering.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_port_for_rest_is_told_from_a_server_that_is_away(host: str, rest_port: int, connect: Any) -> None:
    start = time.monotonic()
    with pytest.raises(ServerGoneError, match="This is a port for REST: name the one for gRPC.$"):
        connect(f"{host}:{rest_port}").predict([[1, 2]])
    assert time.monotonic() - start < 60  # to go on for the two minutes of its patience would not help


def test_after_a_server_stayed_away_the_next_request_is_patient_again(free_port: Any, connect: Any) -> None:
    client = connect(f"127.0.0.1:{free_port()}", patience=0.3)
    with pytest.raises(ServerGoneError):
        client.predict([[1, 2]])
    before = client.retries
    with pytest.raises(ServerGoneError):
        client.predict([[1, 2]])
    assert client.retries > before


def test_a_server_that_goes_away_in_a_stream_is_the_same_error(server: Any, connect: Any) -> None:
    seen = []
    with pytest.raises(ServerGoneError, match="cannot be reached, for 0.3 s"):
        for _, outputs in connect(server.address, patience=0.3).stream(numbered()):
            seen.append(outputs["y"][0, 0])
            if len(seen) == 20:
                server.stop()
    assert seen == [2 * number for number in range(len(seen))]
    assert 20 <= len(seen) <= 36


def test_a_client_waits_for_a_server_that_is_not_there_yet(free_port: Any, connect: Any) -> None:
    port = free_port()
    client = connect(f"127.0.0.1:{port}")
    answers: list[Any] = []
    asking = threading.Thread(target=lambda: answers.append(client.predict([[1, 2]])))
    asking.start()
    asking.join(0.3)
    assert asking.is_alive()
    server = fake_model_server.FakeServer(port)
    asking.join()
    server.stop()
    assert answers[0]["y"].tolist() == [[2, 4]]


def test_a_deadline_is_kept(server: Any, connect: Any) -> None:
    client = connect(server.address)
    client.info()
    client._connection.timeout = 0.2  # not before: the server is to answer the question for its inputs, at any time
    given_up = threading.Event()
    server.misbehave = lambda number, context: given_up.wait(60)
    start = time.monotonic()
    with pytest.raises(ClientError, match=r"did not answer within 0.2 s") as raised:
        client.predict([[1, 2]])
    assert time.monotonic() - start >= 0.2
    assert server.count <= 1
    given_up.set()
    assert raised.value.code == Code.DEADLINE_EXCEEDED


class Process:
    """A fake server that can be killed."""

    def __init__(self, port: int, version: int, delay: float) -> None:
        command = [sys.executable, str(SCRIPT), str(port), str(version), str(delay)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.address = self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()


@pytest.mark.slow
@pytest.mark.parametrize("in_flight", [1, 16])
def test_a_server_that_is_killed_and_restarted_loses_and_repeats_no_sample(
    in_flight: int, free_port: Any, connect: Any
) -> None:
    port, delay = free_port(), 0.002
    running = [Process(port, 1, delay)]
    client = connect(running[0].address)
    starting = threading.Thread()

    def start() -> None:
        running.append(Process(port, len(running) + 1, delay))

    answers, versions = [], []
    try:
        for request, outputs in client.stream(numbered(400), in_flight=in_flight):
            answers.append((request["x"][0, 0], outputs["y"][0, 0]))
            versions.append(outputs.version)
            if len(answers) in (100, 250):
                if starting.ident:
                    starting.join()
                running[-1].kill()
                starting = threading.Thread(target=start)
                starting.start()
    finally:
        if starting.ident:
            starting.join()
        running[-1].kill()
    assert answers == [(number, 2 * number) for number in range(400)]
    assert set(versions) == {1, 2, 3}
    assert client.retries >= 2


def test_large_messages_go_both_ways(server: Any, connect: Any) -> None:
    batch = np.random.default_rng(0).random((1_000_000, 2), np.float32)
    server.misbehave = lambda number, context: None
    with pytest.raises(ClientError, match=r"larger than max .* Raise max_message_bytes"):
        connect(server.address, max_message_bytes=1_000_000).predict(batch)
    outputs = connect(server.address).predict(batch)
    np.testing.assert_array_equal(outputs["y"], 2 * batch)


def test_a_token_is_sent(server: Any, connect: Any, tmp_path: Path) -> None:
    connect(server.address, token="secret").predict([[1, 2]])
    assert server.metadata["authorization"] == "Bearer secret"
    connect(server.address, token=" read-whole \n").predict([[1, 2]])
    assert server.metadata["authorization"] == "Bearer read-whole"
    file = tmp_path / "tokens"
    file.write_text("# tokens of this month\n\nfrom-a-file\nanother\n")
    connect(server.address, token_file=file).predict([[1, 2]])
    assert server.metadata["authorization"] == "Bearer from-a-file"
    server.misbehave = fail_with(grpc.StatusCode.UNAUTHENTICATED, "This server asks for a token.", range(1000))
    with pytest.raises(ClientError, match=r"refused: This server asks for a token. Pass a token with --auth-token"):
        connect(server.address).predict([[1, 2]])
    with pytest.raises(ClientError, match="Cannot read .*none: No such file"):
        connect(server.address, token_file=tmp_path / "none")
    file.write_text("# nothing\n")
    with pytest.raises(ClientError, match="contains no token"):
        connect(server.address, token_file=file)


def test_a_closed_client_says_so(server: Any, connect: Any) -> None:
    client = connect(server.address)
    client.predict([[1, 2]])
    client.close()
    with pytest.raises(ClientError, match="client is closed"):
        client.predict([[1, 2]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": 2**63}, "invalid version of a model: 9223372036854775808. Expected a number from 0"),
        ({"version": -1}, "invalid version of a model: -1"),
        ({"version": ""}, "invalid version of a model: ''.* or a label"),
        ({"model": "m\udcff"}, r"invalid name of a model: 'm\\udcff'. Expected text in UTF-8"),
        ({"timeout": float("nan")}, "timeout is nan. Expected seconds, 0 or more"),
        ({"patience": float("nan")}, "patience is nan. Expected seconds, 0 or more"),
    ],
)
def test_what_cannot_be_asked_is_refused_at_once(options: Any, message: str) -> None:
    with pytest.raises(ClientError, match=message):
        Client("localhost:9000", **options)


@pytest.mark.parametrize("seconds", [float("inf"), 1e300])
def test_an_answer_may_take_for_ever(seconds: float, server: Any, connect: Any) -> None:
    assert connect(server.address, timeout=seconds).predict([[1, 2]])["y"].tolist() == [[2, 4]]


def test_a_version_or_a_label_can_be_asked_for(server: Any, connect: Any) -> None:
    for version in (3, "stable"):
        sent = connect(server.address, version=version).send([[1, 2]])
        spec = messages.PredictRequest.FromString(sent.message).model_spec
        assert (spec.version.value, spec.version_label) == ((3, "") if version == 3 else (0, "stable"))


def test_answers_that_cannot_be_read_are_an_error(server: Any, connect: Any) -> None:
    client = connect(server.address)
    client.info()
    server.bad_answer = True
    with pytest.raises(ClientError, match=r"The answer of the model server at .* cannot be read: .*DT_QINT8"):
        client.predict([[1, 2]])


def test_inputs_with_defaults_may_be_left_out(server: Any, connect: Any) -> None:
    server.default_input = "threshold"
    client = connect(server.address)
    assert client.info().optional == {"threshold"}
    assert client.predict({"x": [[1, 2]]})["y"].tolist() == [[2, 4]]


def test_messages_are_kept_where_they_are_asked_for(server: Any, connect: Any) -> None:
    assert connect(server.address).predict([[1, 2]]).message == b""
    kept = connect(server.address, keep_messages=True).predict([[1, 2]]).message
    assert list(messages.PredictResponse.FromString(kept).outputs["y"].float_val) == [2, 4]


AVAILABLE, LOADING, END = 30, 20, 50


def told(statuses: dict[int, int] | None, error: ClientError) -> str:
    def call_once(path: str, request: Any, response_class: Any) -> Any:
        if statuses is None:
            return None
        assert (path, request.model_spec.name) == ("/tensorflow.serving.ModelService/GetModelStatus", "digits")
        response = response_class()
        for version, state in statuses.items():
            response.model_version_status.add(version=version, state=state)
        return response

    found = with_versions(error, types.SimpleNamespace(call_once=call_once), "digits")
    assert found.code == error.code
    return str(found)


@pytest.mark.parametrize(
    ("statuses", "advice"),
    [
        ({5: AVAILABLE, 4: END, 3: AVAILABLE}, "Versions that answer: 3, 5."),
        ({2: LOADING, 1: END}, "No version of the model answers now: 1 is END, 2 is LOADING."),
        (dict.fromkeys(range(1, 23), AVAILABLE), f"Versions that answer: …, {', '.join(map(str, range(3, 23)))}."),
        (None, "Expected the name of a model that it serves (--model-name, `model`) and a version of it."),
    ],
)
def test_the_versions_that_there_are_follow_the_servers_words(statuses: Any, advice: str) -> None:
    error = ClientError("The model server answered NOT_FOUND: no version 9.", Code.NOT_FOUND)
    assert told(statuses, error) == f"The model server answered NOT_FOUND: no version 9. {advice}"


def test_only_what_is_not_there_is_asked_about() -> None:
    assert is_not_found(ClientError("Servable not found", Code.NOT_FOUND))
    assert is_not_found(ClientError("Unrecognized servable version label: new", Code.INVALID_ARGUMENT))
    assert not is_not_found(ClientError("Expected float32", Code.INVALID_ARGUMENT))
    assert not is_not_found(ClientError("It did not answer", Code.DEADLINE_EXCEEDED))
