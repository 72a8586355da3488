"""The client and the embedded model server together, over real connections; the server as a process that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments_manager import Client
from experiments_manager.client.errors import ClientError, ServerGoneError
from tests.helpers.warm_processes import WarmPopen


def requests(count: int) -> Iterator[dict[str, np.ndarray]]:
    for number in range(count):
        yield {"x": np.full((1, 3), number, np.float32)}


@pytest.mark.slow
def test_a_stream_is_answered_in_order(model_server: Any) -> None:
    with Client(f"127.0.0.1:{model_server.grpc}", "linear") as client:
        answers = [(request["x"][0, 0], outputs["y"][0, 0]) for request, outputs in client.stream(requests(500))]
        assert answers == [(number, 5 * number + 1) for number in range(500)]
        assert client.predict([[1, 2, 3]]).version == 2


def test_versions_labels_and_signatures_can_be_asked_for(model_server: Any) -> None:
    address = f"127.0.0.1:{model_server.grpc}"
    for options, expected in (
        ({"version": 1}, [3.0]),
        ({"version": "stable"}, [3.0]),
        ({"signature": "twice"}, [12.0]),
    ):
        with Client(address, "linear", **options) as client:
            assert client.predict([[1, 1, 1]])["y"][0, :1].tolist() == expected


@pytest.mark.parametrize(
    ("model", "version", "message"),
    [
        ("linear", 9, r"NOT_FOUND: .*\(linear, 9\)\. Versions that answer: 1, 2\.$"),
        ("linear", "nope", r"version label: nope\. The model has no such label\. Versions that answer: 1, 2\.$"),
        ("other", 9, r"NOT_FOUND: .*\(other, 9\)\. Expected the name of a model that it serves .* a version of it\.$"),
        ("other", "nope", r"version label: nope\. Expected the name of a model that it serves .* a version of it\.$"),
    ],
)
def test_who_asks_for_what_is_not_there_is_told_what_is(
    model: str, version: int | str, message: str, model_server: Any
) -> None:
    with (
        Client(f"127.0.0.1:{model_server.grpc}", model, version=version) as client,
        pytest.raises(ClientError, match=message),
    ):
        client.predict([[1, 1, 1]])


def test_a_version_that_is_gone_in_between_is_told_with_those_that_are_left(model_server: Any) -> None:
    with Client(f"127.0.0.1:{model_server.grpc}", "linear", version=1) as client:
        client.predict([[1, 1, 1]])
        client.version = 7  # as if it had been asked for version 7, which the server has let go of since
        with pytest.raises(ClientError, match=r"\(linear, 7\)\. Versions that answer: 1, 2\.$"):
            client.predict([[1, 1, 1]])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_port_for_rest_is_no_server_to_wait_for(host: str, model_server: Any) -> None:
    with (
        Client(f"{host}:{model_server.rest}", "linear", patience=300) as client,
        pytest.raises(
            ServerGoneError, match=r"cannot be reached \(.* This is a port for REST: name the one for gRPC\.$"
        ),
    ):
        client.predict([[1, 1, 1]])


def test_types_of_all_sorts_arrive(model_server: Any) -> None:
    with Client(f"127.0.0.1:{model_server.grpc}", "words") as client:
        name = next(iter(client.info().inputs))
        outputs = client.predict({name: ["one", "two", "none"]})
        flat = [value.tolist() for value in outputs.values()]
        assert [1, 2, -1] in flat
        assert [b"one!", b"two!", b"none!"] in flat
        with pytest.raises(ClientError, match="a bad word"):
            client.predict({name: ["bad"]})


@pytest.mark.slow
def test_a_model_server_that_is_killed_and_restarted_loses_and_repeats_no_sample(
    saved_models: Any, tmp_path: Path, free_port: Any
) -> None:
    saved_models.publish(saved_models.linear, tmp_path / "linear", 1)
    port = free_port()

    def start() -> subprocess.Popen:
        program = "from experiments_manager.serving.server.flags import main; main()"
        flags = [
            f"--port={port}",
            "--model_name=linear",
            f"--model_base_path={tmp_path / 'linear'}",
            "--enable_batching",
        ]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        with (tmp_path / "log").open("ab") as log:
            return WarmPopen([sys.executable, "-c", program, *flags], env=environment, stdout=log, stderr=log)

    server, answers = start(), []
    try:
        with Client(f"127.0.0.1:{port}", "linear", patience=300, timeout=60) as client:
            for request, outputs in client.stream(requests(600)):
                answers.append((request["x"][0, 0], outputs["y"][0, 0]))
                if len(answers) == 200:
                    server.kill()
                    server.wait()
                    server = start()
            assert client.retries >= 1
    finally:
        server.kill()
        server.wait()
    assert answers == [(number, 2 * number + 1) for number in range(600)]


def test_a_watch_sees_a_version_take_over(saved_models: Any, running: Any, tmp_path: Path) -> None:
    saved_models.publish(saved_models.linear, tmp_path / "linear", 1)
    np.save(tmp_path / "x.npy", np.ones((4, 3), np.float32))
    flags = [f"--model_base_path={tmp_path / 'linear'}", "--model_name=linear", "--file_system_poll_wait_seconds=1"]
    with running.running_server(flags) as server:
        words = ["--address", f"127.0.0.1:{server.grpc}", "--model-name", "linear", "--interval", "0.05", "--watch"]
        command = [sys.executable, "-m", "experiments_manager", "predict", *words, "--from", str(tmp_path / "x.npy")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
            assert "  version 1  y = 3, " in watching.stdout.readline()
            saved_models.publish(saved_models.steeper, tmp_path / "linear", 2)
            assert "  version 2  y = 6, " in watching.stdout.readline()
            watching.send_signal(signal.SIGINT)
            out, error = watching.communicate(timeout=60)
    assert (watching.returncode, out) == (0, "")
    assert error.endswith("2 versions seen.\n")
