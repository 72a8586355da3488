"""A server's memory over all the ways in which a request can end: flat after a warm-up, whatever clients do."""

import concurrent.futures
import contextlib
import gzip
import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from experiments_manager.protocol import messages, tensors

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

MEGABYTE = 2**20
PATH = "/v1/models/linear:predict"
PREDICT = "/tensorflow.serving.PredictionService/Predict"
HEAD = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n".encode()
MANY = json.dumps({"instances": [[1, 2, 3]] * 30_000}).encode()
BOMB = gzip.compress(b"0" * 48_000_000)
LARGE = 20_000_000
WARM_UP, ROUNDS = 2, 1
ROOM = 100 * MEGABYTE
"""What fragments of memory may add; before bodies were let go of, a round added more than a gigabyte."""


class Process:
    """A server in a process of its own, with tokens and a limit on the time of answers."""

    def __init__(self, folder, base_path):
        token = folder / "tokens"
        token.write_text("secret\n")
        self.grpc, self.rest = _free_port(), _free_port()
        self.log = folder / "log"
        flags = [
            f"--model_base_path={base_path}",
            "--model_name=linear",
            f"--port={self.grpc}",
            f"--rest_api_port={self.rest}",
            f"--auth_token_file={token}",
            "--enable_batching",
            "--body_timeout_seconds=1",
        ]
        with self.log.open("w") as log:
            line = [sys.executable, "-m", "experiments_manager.serving.server.flags", *flags]
            self.process = subprocess.Popen(line, stdout=log, stderr=log)
        while "Entering the event loop" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)

    def resident(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024

    def all_ready_or_failed(self, below=0):
        """The memory it comes to rest with, a few seconds after the last request."""
        for _ in range(4):
            time.sleep(1)
            if self.resident() <= below:
                break
        return self.resident()

    def post(self, body, path=PATH, token="secret", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.rest, timeout=60)
        with contextlib.closing(connection):
            connection.request("POST", path, body, {"Authorization": f"Bearer {token}", **headers})
            response = connection.getresponse()
            response.read()
            return response.status

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.rest), timeout=60)


def _free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def server(saved_models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("soak")
    saved_models.publish(saved_models.linear, folder / "linear", 1)
    started = Process(folder, folder / "linear")
    try:
        yield started
    finally:
        started.process.send_signal(signal.SIGTERM)
        started.process.wait(60)


def at_once(count, function):
    with concurrent.futures.ThreadPoolExecutor(count) as threads:
        for done in [threads.submit(function) for _ in range(count)]:
            done.result()


# REST


def answered(server):
    for _ in range(5):
        assert server.post(MANY) == 200


def refused(server):
    for _ in range(10):
        assert server.post(BOMB, **{"Content-Encoding": "gzip"}) == 413
    for _ in range(3):
        assert server.post(MANY[:-5]) == 400
        assert server.post(MANY.replace(b"instances", b"something")) == 400
        assert server.post(MANY, path="/v1/models/none:predict") == 404
        assert server.post(MANY, path="/nowhere") == 404
        with contextlib.suppress(ConnectionError):  # it hears no more than it must
            assert server.post(MANY, token="wrong") == 401


def cut_while_it_is_sent(server):
    def cut():
        # On a busy machine, ten of them may take longer than a body is waited for, and are cut by the server.
        with server.connect() as client, contextlib.suppress(ConnectionError):
            client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % (LARGE + 10))
            client.sendall(b"1" * LARGE)

    at_once(10, cut)


def cut_while_it_is_answered(server):
    def leave(reads):
        with server.connect() as client:
            client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(MANY) + MANY)
            if reads:
                client.recv(reads)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    for reads in (0, 100):
        at_once(5, lambda reads=reads: leave(reads))


def too_slow(server):
    def stop():
        with server.connect() as client:
            client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % LARGE)
            client.sendall(b"1" * 1_000_000)
            with contextlib.suppress(ConnectionError):
                assert client.recv(1000).startswith(b"HTTP/1.1 408 ")

    at_once(5, stop)


# gRPC


def _message(rows, name="linear"):
    request = messages.PredictRequest()
    request.model_spec.name = name
    request.inputs["x"].CopyFrom(tensors.to_proto(np.ones((rows, 3), np.float32)))
    return request.SerializeToString()


@contextlib.contextmanager
def _calling(port):
    options = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
    ]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        yield channel.unary_unary(PREDICT)


def _code(call, data, timeout=60, token="secret"):
    try:
        call(data, timeout=timeout, metadata=[("authorization", f"Bearer {token}")])
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def grpc_answered_and_refused(server):
    large = _message(400_000)
    with _calling(server.grpc) as call:
        for _ in range(3):
            assert _code(call, large) is grpc.StatusCode.OK
            assert _code(call, _message(400_000, "none")) is grpc.StatusCode.NOT_FOUND
            assert _code(call, b"\xff" * 5_000_000) is grpc.StatusCode.INVALID_ARGUMENT
            assert _code(call, large, token="wrong") is grpc.StatusCode.UNAUTHENTICATED


def grpc_given_up(server):
    large = _message(1_000_000)
    with _calling(server.grpc) as call:
        for _ in range(5):
            _code(call, large, timeout=0.01)
        waiting = [call.future(large, metadata=[("authorization", "Bearer secret")]) for _ in range(5)]
        for future in waiting:
            future.cancel()


def grpc_cut(server):
    """The line breaks while a request is on its way."""

    def cut():
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(1)
            between = threading.Thread(target=_pass_on, args=(listening, server.grpc, 5_000_000))
            between.start()
            with _calling(listening.getsockname()[1]) as call:
                assert _code(call, _message(1_000_000)) is grpc.StatusCode.UNAVAILABLE
            between.join()

    at_once(5, cut)


def _pass_on(listening, port, most):
    client, _ = listening.accept()
    with client, socket.create_connection(("127.0.0.1", port)) as server:
        backwards = threading.Thread(target=_copy, args=(server, client, os.sysconf("SC_PAGE_SIZE") * most))
        backwards.start()
        _copy(client, server, most)
        server.shutdown(socket.SHUT_RDWR)
        backwards.join()


def _copy(source, target, most):
    with contextlib.suppress(OSError):
        while most > 0 and (data := source.recv(1 << 16)):
            target.sendall(data)
            most -= len(data)


@pytest.mark.parametrize(
    "endings",
    [
        [answered, refused, cut_while_it_is_sent, cut_while_it_is_answered, too_slow],
        [grpc_answered_and_refused, grpc_given_up, grpc_cut],
    ],
    ids=["REST", "gRPC"],
)
def test_however_requests_end_memory_stays(server, endings):
    for _ in range(WARM_UP):
        for ending in endings:
            ending(server)
    before = server.all_ready_or_failed()
    for _ in range(ROUNDS):
        for ending in endings:
            ending(server)
    after = server.all_ready_or_failed(below=before + ROOM // 2)
    assert after < before + ROOM, f"{(after - before) / MEGABYTE:.0f} MB more"
    assert server.post(b'{"instances": [[1, 2, 3]]}') == 200
