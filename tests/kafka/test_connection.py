"""Options of librdkafka."""

import pytest

from experiments_manager.kafka.connection import BrokerConnection
from experiments_manager.kafka.errors import TopicError


def test_the_users_options_win_over_our_own():
    config = BrokerConnection(["a:1", "b:2"], {"linger.ms": 5}).config(linger_ms=20, batch_size=7)
    assert config["bootstrap.servers"] == "a:1,b:2"
    assert (config["linger.ms"], config["batch.size"]) == (5, 7)


def test_secrets_come_from_the_environment(monkeypatch):
    connection = BrokerConnection(["a:1"], {"sasl.password": "${BROKER_PASSWORD}"})
    with pytest.raises(TopicError, match="sasl.password names the variable BROKER_PASSWORD, which is not set"):
        connection.config()
    monkeypatch.setenv("BROKER_PASSWORD", "secret")
    assert connection.config()["sasl.password"] == "secret"
    assert "secret" not in repr(vars(connection))


def test_an_option_that_librdkafka_does_not_know_is_refused_without_the_secret(monkeypatch):
    monkeypatch.setenv("BROKER_PASSWORD", "hidden-text")
    connection = BrokerConnection(["a:1"], {"sasl.password": "${BROKER_PASSWORD}", "sasl.usrname": "me"})
    with pytest.raises(TopicError, match='kafka_options: No such configuration property: "sasl.usrname"') as failure:
        connection.config()
    assert "hidden-text" not in str(failure.value)


def test_an_invalid_value_is_refused_and_not_told_if_it_is_a_secret(monkeypatch):
    monkeypatch.setenv("PROTOCOL", "hidden-text")
    with pytest.raises(
        TopicError, match=r'Invalid value "\*\*\*" for configuration property "security.protocol"'
    ) as failure:
        BrokerConnection(["a:1"], {"security.protocol": "${PROTOCOL}"}).config()
    assert "hidden-text" not in f"{failure.value} {failure.value.__cause__} {failure.value.__context__.args[0].name()}"


def test_texts_are_freed_of_what_stands_for_a_secret_by_its_name():
    connection = BrokerConnection(["a:1"], {"sasl.password": "plain", "client.id": "me"})
    assert connection.without_secrets("me: plain") == "me: ***"
