import socket

import pytest

from experiments_manager.doctor.finding import FindingState
from experiments_manager.doctor.services import kafka, model_server


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_model_server_that_listens_is_found(listening):
    assert model_server({"server_host": "127.0.0.1", "grpc_port": listening}).state is FindingState.OK


def test_a_model_server_that_does_not_listen_is_a_note_with_the_command_that_starts_it():
    found = model_server({"server_host": "127.0.0.1", "grpc_port": 1})
    assert found.state is FindingState.NOTE
    assert "connection refused" in found.text
    assert "experiments_manager serve" in found.remedy


def test_of_several_brokers_those_that_answer_are_told_from_those_that_do_not(listening):
    found = kafka({"kafka_bootstrap_servers": [f"127.0.0.1:{listening}", "127.0.0.1:1", "nonsense"]})
    assert found.state is FindingState.NOTE
    assert "nonsense: no address. Expected host:port" in found.text
    assert found.text.endswith(f"reached: 127.0.0.1:{listening}")
