"""tools/kafka_broker.py: a real broker by one command."""

import ast
import json
import os
import shutil
import signal
import socket
import subprocess
import sys

import pytest

from experiments_manager.kafka.connection import BrokerConnection
from tests.helpers.kafka_brokers import TOOL, run_tool, unused_port, what_is_missing
from tests.helpers.own_brokers import load_tool
from tests.helpers.topics import messages, numbered, produce
from tests.helpers.waiting import wait_until

pytestmark = pytest.mark.slow
needs_kafka = pytest.mark.skipif(bool(what_is_missing()), reason=what_is_missing())


@needs_kafka
def test_a_broker_is_started_found_and_stopped_and_keeps_its_cluster_in_a_folder_of_any_name(tmp_path):
    data, port = tmp_path / "le café", unused_port()
    try:
        started = run_tool("start", "--data", data, "--port", port)
        assert started.returncode == 0, started.stderr
        assert f"127.0.0.1:{port}" in started.stdout
        assert [folder.name for folder in tmp_path.iterdir()] == ["le café"]
        again = run_tool("start", "--data", data, "--port", port)
        assert "Already running" in again.stdout
        assert run_tool("status", "--data", data).returncode == 0
        taken = run_tool("start", "--data", tmp_path / "other", "--port", port)
        assert taken.returncode == 2
        assert f"Port {port} cannot be used: a Kafka broker answers there" in taken.stderr
    finally:
        stopped = run_tool("stop", "--data", data)
    assert "Stopped the broker" in stopped.stdout
    assert run_tool("status", "--data", data).returncode == 1
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port)).close()

    meta = data / "records/meta.properties"
    meta.write_text(meta.read_text().replace("cluster.id=", "cluster.id=x"))
    refused = run_tool("start", "--data", data, "--port", port)
    assert refused.returncode == 2
    assert "holds data of another cluster" in refused.stderr


def test_a_folder_that_kafka_would_take_for_two_is_refused(tmp_path):
    told = run_tool("start", "--data", tmp_path / "a,b")
    assert (told.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "a name has a comma" in told.stderr


def test_a_port_that_something_else_uses_is_refused(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        refused = run_tool("start", "--data", tmp_path, "--port", other.getsockname()[1])
    assert refused.returncode == 2
    assert "cannot be used: Address already in use" in refused.stderr


def test_stopping_what_does_not_run_is_no_error(tmp_path):
    told = run_tool("stop", "--data", tmp_path)
    assert (told.returncode, "No broker" in told.stdout) == (0, True)


def test_missing_java_is_named(tmp_path):
    without = run_tool("start", "--data", tmp_path, "--port", unused_port(), environment={"JAVA_HOME": str(tmp_path)})
    assert without.returncode == 2
    assert f"java not found in JAVA_HOME ({tmp_path})" in without.stderr


@pytest.fixture
def pretend(tmp_path, monkeypatch):
    """Puts a program of that name before all others on the path; gives its folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.delenv("KAFKA_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def make(name, text):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
        return folder

    return make


NEW_JAVA = "echo 'openjdk version \"21.0.1\" 2023-10-17' >&2"


def test_a_java_that_is_too_old_is_named(pretend, tmp_path):
    pretend("java", "echo 'openjdk version \"11.0.2\" 2019-01-15' >&2")
    refused = run_tool("start", "--data", tmp_path, "--port", unused_port())
    assert refused.returncode == 2
    assert 'Java is too old. Expected 17 or newer, got openjdk version "11.0.2"' in refused.stderr


def test_missing_maven_is_named(pretend, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(pretend("java", NEW_JAVA)))
    refused = run_tool("start", "--data", tmp_path, "--port", unused_port())
    assert refused.returncode == 2
    assert "no mvn on the path" in refused.stderr
    assert "KAFKA_HOME" in refused.stderr


def test_a_fetch_that_fails_is_told_and_leaves_nothing(pretend, tmp_path):
    pretend("java", NEW_JAVA)
    pretend("mvn", "echo '[ERROR] Unknown host repo.example.org'; exit 1")
    refused = run_tool("start", "--data", tmp_path / "data", "--port", unused_port())
    assert refused.returncode == 2
    assert "Maven could not fetch Kafka: [ERROR] Unknown host repo.example.org" in refused.stderr
    assert list((tmp_path / "cache/experiments_manager").iterdir()) == []


def test_a_kafka_home_without_kafka_is_named(pretend, tmp_path, monkeypatch):
    pretend("java", NEW_JAVA)
    monkeypatch.setenv("KAFKA_HOME", str(tmp_path))
    refused = run_tool("start", "--data", tmp_path, "--port", unused_port())
    assert refused.returncode == 2
    assert f"No Kafka in KAFKA_HOME. Expected kafka_2.13-4.*.jar in {tmp_path / 'libs'}" in refused.stderr


@needs_kafka
def test_a_kafka_home_is_used_and_a_broker_that_ends_while_starting_tells_why_and_leaves_no_process(tmp_path):
    libraries = load_tool().find_libraries()
    (tmp_path / "kafka").mkdir()
    (tmp_path / "kafka/libs").symlink_to(libraries)
    data, port = tmp_path / "data", unused_port()
    try:
        # There is no cache in this home, and no Maven to fill it.
        home = {"KAFKA_HOME": str(tmp_path / "kafka"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
        started = run_tool("start", "--data", data, "--port", port, environment=home)
        assert started.returncode == 0, started.stderr
        assert not (tmp_path / "cache").exists()
    finally:
        run_tool("stop", "--data", data)

    [metadata] = data.glob("records/__cluster_metadata-0")
    shutil.rmtree(metadata)
    metadata.write_text("no folder")
    refused = run_tool("start", "--data", data, "--port", port)
    assert refused.returncode == 2
    assert "Kafka ended while starting" in refused.stderr
    assert str(data / "broker.log") in refused.stderr
    assert "pid" not in json.loads((data / "broker.json").read_text())


@needs_kafka
def test_topics_are_still_there_after_a_kill_and_after_a_stop_and_a_start_at_another_port(tmp_path, topic):
    data, port = tmp_path / "data", unused_port()
    try:
        assert run_tool("start", "--data", data, "--port", port).returncode == 0
        produce(BrokerConnection([f"127.0.0.1:{port}"]), topic, numbered(0, 50), partitions=2)
        other = run_tool("start", "--data", data, "--port", unused_port())
        assert other.returncode == 2
        assert f"already runs, at port {port}" in other.stderr
        os.kill(json.loads((data / "broker.json").read_text())["pid"], signal.SIGKILL)
        wait_until(lambda: run_tool("status", "--data", data).returncode == 1)
        for at in (port, unused_port()):
            assert run_tool("start", "--data", data, "--port", at).returncode == 0
            assert len(messages(BrokerConnection([f"127.0.0.1:{at}"]), topic)) == 50
            assert "Stopped the broker" in run_tool("stop", "--data", data).stdout
    finally:
        run_tool("stop", "--data", data)


def test_a_broker_that_does_not_end_is_killed(tmp_path, monkeypatch):
    tool = load_tool()
    monkeypatch.setattr(tool, "STOP_SECONDS", 0.5)
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    script = f"import signal, time; {ignore}; print('.', flush=True); time.sleep(600)"
    command = [sys.executable, "-c", script, str(tmp_path / "server.properties")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as stubborn:
        stubborn.stdout.read(1)  # it ignores SIGTERM from here on
        (tmp_path / "broker.json").write_text(f'{{"pid": {stubborn.pid}, "port": 9092, "cluster_id": "x"}}')
        assert tool.status(tmp_path) == (
            f"Does not answer: Kafka at 127.0.0.1:9092, process {stubborn.pid}, cluster x. "
            f"Its log: {tmp_path / 'broker.log'}.",
            False,
        )
        assert "It did not end within 0.5 s and was killed." in tool.stop(tmp_path)
    assert stubborn.returncode == -signal.SIGKILL
    assert json.loads((tmp_path / "broker.json").read_text()) == {"cluster_id": "x"}


def test_a_damaged_state_file_is_named(tmp_path):
    (tmp_path / "broker.json").write_text("{")
    refused = run_tool("status", "--data", tmp_path)
    assert refused.returncode == 2
    assert f"{tmp_path / 'broker.json'} cannot be read" in refused.stderr


def test_the_tool_needs_the_standard_library_alone():
    tree = ast.parse(TOOL.read_text())
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


@needs_kafka
def test_a_process_that_got_the_brokers_number_is_left_alone(tmp_path):
    other = subprocess.Popen(["sleep", "60"])
    try:
        (tmp_path / "broker.json").write_text(f'{{"pid": {other.pid}, "port": 9092, "cluster_id": "x"}}')
        assert "No broker" in run_tool("stop", "--data", tmp_path).stdout
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
