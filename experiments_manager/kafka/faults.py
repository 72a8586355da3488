"""Faults of librdkafka: which pass by themselves, and as sentences why no broker can be talked to."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

_LOOK_SECONDS = 3.0
_PROTOCOLS = "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"
_TRANSIENT = ("_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE", "_TIMED_OUT", "_MSG_TIMED_OUT", "_MAX_POLL_EXCEEDED")


def is_transient(error: Any) -> bool:
    """Return whether librdkafka goes on by itself after a `KafkaError`."""
    return error.name() in _TRANSIENT or error.retriable()


def refusal(kafka: ModuleType, config: Mapping[str, Any], servers: Sequence[str]) -> str | None:
    """Return why brokers that are there do not talk to this client; `None` if none is there, or one does.

    Args:
        kafka: The package `confluent_kafka`.
        config: Configuration of a client.
        servers: The brokers' addresses.
    """
    told: list[tuple[str, str]] = []
    client = kafka.admin.AdminClient({**config, "error_cb": lambda error: told.append((error.name(), error.str()))})
    deadline = time.monotonic() + _LOOK_SECONDS
    while time.monotonic() < deadline:
        try:
            client.list_topics(timeout=0.5)
            return None
        except kafka.KafkaException:
            client.poll(0.1)
        for name, text in told:
            if found := _explained(name, text, config):
                return found
        if any(name in ("_RESOLVE", "_TRANSPORT") for name, _ in told):
            return None  # nobody listens there
    return _hang_up(config) if any(map(_listens, servers)) else None


def _explained(name: str, text: str, config: Mapping[str, Any]) -> str | None:
    where = re.match(r"(?:\w+://)?([^/\s]+)/", text)
    broker = f"The Kafka broker at {where[1]}" if where else "The Kafka broker"
    reason = re.sub(r"^\S+/\S+: ", "", re.sub(r" \(after \d+ms.*", "", text))
    mechanism = config.get("sasl.mechanism", config.get("sasl.mechanisms", "GSSAPI"))
    if known := re.search(r"supported mechanisms: (.+)", text):
        return (
            f"{broker} does not take the mechanism {mechanism}. Expected {known[1]}. Correct sasl.mechanism in "
            "kafka_options."
        )
    if name == "_AUTHENTICATION" and "credentials" in text:
        return (
            f"{broker} refuses user {config.get('sasl.username')} (mechanism {mechanism}): unknown, or with another "
            "password. Correct sasl.username and sasl.password in kafka_options."
        )
    if name == "_AUTHENTICATION":
        return f"{broker} refuses this client: {reason}. Correct the options sasl.* in kafka_options."
    if "certificate verify failed" in text:
        return (
            f"{broker} has a certificate that is not trusted: {reason}. Expected one for that name, signed by an "
            "authority that ssl.ca.location in kafka_options names."
        )
    if "PLAINTEXT broker" in text:
        return (
            f"{broker} does not speak TLS at this port. Expected that security.protocol in kafka_options is PLAINTEXT "
            f"or SASL_PLAINTEXT, got {config.get('security.protocol')}. Correct it, or name the port for TLS."
        )
    if name == "_SSL":
        return f"TLS with the Kafka broker failed: {reason}. Correct the options ssl.* in kafka_options."
    return None


def _hang_up(config: Mapping[str, Any]) -> str:
    protocol = config.get("security.protocol", "PLAINTEXT")
    servers = config["bootstrap.servers"]
    return (
        f"Something listens at {servers} and closes the connection: it may ask for TLS or for a password. Expected "
        f"that security.protocol in kafka_options is the one of that port ({_PROTOCOLS}), got {protocol}. Correct it."
    )


def _listens(server: str) -> bool:
    host, _, port = server.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
    except (OSError, ValueError):
        return False
    return True
