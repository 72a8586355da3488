"""tools/kafka_broker.py: a real broker by one command."""

import socket
import subprocess

import pytest

from tests.helpers.kafka_brokers import run_tool, unused_port, what_is_missing

pytestmark = pytest.mark.slow
needs_kafka = pytest.mark.skipif(bool(what_is_missing()), reason=what_is_missing())


@needs_kafka
def test_a_broker_is_started_found_and_stopped_and_keeps_its_cluster(tmp_path):
    data, port = tmp_path / "data", unused_port()
    try:
        started = run_tool("start", "--data", data, "--port", port)
        assert started.returncode == 0, started.stderr
        assert f"127.0.0.1:{port}" in started.stdout
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


def test_a_port_that_something_else_uses_is_refused(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        refused = run_tool("start", "--data", tmp_path, "--port", other.getsockname()[1])
    assert refused.returncode == 2
    assert "cannot be used: Address already in use" in refused.stderr


def test_stopping_what_does_not_run_is_no_error(tmp_path):
    told = run_tool("stop", "--data", tmp_path)
    assert (told.returncode, "No broker" in told.stdout) == (0, True)


def test_missing_java_and_a_wrong_kafka_home_are_named(tmp_path):
    without = run_tool("start", "--data", tmp_path, "--port", unused_port(), environment={"JAVA_HOME": str(tmp_path)})
    assert without.returncode == 2
    assert f"java not found in JAVA_HOME ({tmp_path})" in without.stderr


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
