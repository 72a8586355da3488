"""Options of librdkafka."""

import pytest

from experiments_manager.kafka.connection import Connection
from experiments_manager.kafka.errors import TopicError


def test_the_users_options_win_over_our_own():
    config = Connection(["a:1", "b:2"], {"linger.ms": 5}).config(linger_ms=20, batch_size=7)
    assert config["bootstrap.servers"] == "a:1,b:2"
    assert (config["linger.ms"], config["batch.size"]) == (5, 7)


def test_secrets_come_from_the_environment(monkeypatch):
    connection = Connection(["a:1"], {"sasl.password": "${BROKER_PASSWORD}"})
    with pytest.raises(TopicError, match="sasl.password names the variable BROKER_PASSWORD, which is not set"):
        connection.config()
    monkeypatch.setenv("BROKER_PASSWORD", "secret")
    assert connection.config()["sasl.password"] == "secret"
    assert "secret" not in repr(vars(connection))
