"""A real Kafka broker for the tests: one for all processes of a test run, with its data in a temporary directory."""

import contextlib
import fcntl
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools/kafka_broker.py"


def what_is_missing():
    """Says what keeps a broker from being started here; nothing where it can be."""
    if importlib.util.find_spec("confluent_kafka") is None:
        return "confluent-kafka is not installed: pip install '.[kafka]'"
    if shutil.which("java") is None and not os.environ.get("JAVA_HOME"):
        return "Kafka needs Java 17: sudo apt-get install openjdk-17-jre-headless"
    if shutil.which("mvn") is None and not os.environ.get("KAFKA_HOME"):
        return "Kafka is fetched by Maven: sudo apt-get install maven, or set KAFKA_HOME"
    return ""


def run_tool(*arguments, environment=None):
    """Runs tools/kafka_broker.py, and gives the finished process."""
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})


def unused_port():
    """Gives a port of 127.0.0.1 at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def _shared(file):
    """Holds a small JSON file for itself, among all processes; what the block puts into it is written."""
    with file.open("a+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        state = json.loads(stream.read() or '{"users": 0}')
        yield state
        stream.truncate(0)
        stream.write(json.dumps(state))
        stream.flush()


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory):
    """`host:port` of a broker; the first process that asks starts it, the last one that ends stops it."""
    if missing := what_is_missing():
        pytest.skip(missing)
    base = tmp_path_factory.getbasetemp()
    root = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    data = root / "kafka"
    with _shared(root / "kafka_users.json") as state:
        if not state["users"]:
            state["port"] = unused_port()
            started = run_tool("start", "--data", data, "--port", state["port"])
            assert started.returncode == 0, started.stderr
        state["users"] += 1
        port = state["port"]
    yield f"127.0.0.1:{port}"
    with _shared(root / "kafka_users.json") as state:
        state["users"] -= 1
        if not state["users"]:
            stopped = run_tool("stop", "--data", data)
            assert stopped.returncode == 0, stopped.stderr


@pytest.fixture
def kafka(kafka_broker):
    """The connection to the broker."""
    from experiments_manager.kafka.connection import BrokerConnection

    return BrokerConnection([kafka_broker])


@pytest.fixture
def topic():
    """A name that no other test's topic has."""
    return f"samples-{uuid.uuid4().hex[:12]}"
