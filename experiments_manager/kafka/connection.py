"""How to reach a broker: librdkafka's options, which of its errors pass by themselves, and the others as sentences."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from experiments_manager.common.installation import install_command
from experiments_manager.kafka.errors import NoBrokerError, TopicError
from experiments_manager.settings.value_checks import SECRET_WORDS

REQUEST_SECONDS = 15.0
"""How long a broker may take to answer a request for metadata or offsets."""

_NO_ANSWER = ("_TRANSPORT", "_TIMED_OUT", "_ALL_BROKERS_DOWN")
_NOT_READY = (
    "NOT_COORDINATOR",
    "COORDINATOR_NOT_AVAILABLE",
    "COORDINATOR_LOAD_IN_PROGRESS",
    "LEADER_NOT_AVAILABLE",
    "_WAIT_COORD",
)
"""What a broker says that has only just started."""
_VARIABLE = re.compile(r"\$\{(\w+)\}")


class BrokerConnection:
    """Where the brokers are and how to talk to them.

    Args:
        servers: `host:port` of one broker or more, as `kafka_bootstrap_servers`.
        options: Further options of librdkafka, as `kafka_options`; `${NAME}` in a text is a variable of the
            environment, so that no secret stands in a settings module.
    """

    def __init__(self, servers: Sequence[str], options: Mapping[str, Any] | None = None) -> None:
        self.servers = tuple(servers)
        self._options = dict(options or {})
        self._is_checked = not self._options

    def config(self, **own: Any) -> dict[str, Any]:
        """Return the configuration of a client; the user's options win over `own`, whose `_` stand for `.`.

        Raises:
            TopicError: A variable of the environment is not set, or librdkafka refuses an option.
        """
        self._check()
        config = {"bootstrap.servers": ",".join(self.servers), "log_level": 2}
        config |= {name.replace("_", "."): value for name, value in own.items()}
        return config | {name: _expanded(name, value) for name, value in self._options.items()}

    @contextlib.contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Turn librdkafka's errors into `TopicError`.

        Args:
            what: What failed, for the message: "The topic x was not created".
        """
        kafka = confluent_kafka()
        try:
            yield
        except kafka.KafkaException as error:
            cause = error.args[0]
            if cause.name() in _NO_ANSWER:
                raise self.no_broker() from error
            passes = cause.retriable() or cause.name() in _NOT_READY
            kind = NoBrokerError if passes else TopicError
            raise kind(f"{what}: {self.without_secrets(cause.str())}.") from error

    @contextlib.contextmanager
    def consumer(self, what: str, **own: Any) -> Iterator[Any]:
        """Open a consumer for questions, with librdkafka's errors as `TopicError`.

        Args:
            what: What failed, for the message; see `errors`.
            own: Options, as for `config`.
        """
        consumer = confluent_kafka().Consumer(self.config(**{"group_id": "experiments_manager"} | own))
        try:
            with self.errors(what):
                yield consumer
        finally:
            consumer.close()

    def refusal(self) -> TopicError | None:
        """Return why the brokers do not talk to this client: TLS or its name and password; else `None`."""
        reason = refusal(confluent_kafka(), self.config(), self.servers)
        return TopicError(self.without_secrets(reason)) if reason else None

    def without_secrets(self, text: str) -> str:
        """Return a text of librdkafka with `***` for every value of `kafka_options` that may be a secret."""
        for name, value in self._options.items():
            if isinstance(value, str) and (_VARIABLE.search(value) or any(word in name for word in SECRET_WORDS)):
                with contextlib.suppress(TopicError):
                    text = text.replace(_expanded(name, value) or "***", "***")
        return text

    def _check(self) -> None:
        """Let librdkafka look at the options, once."""
        if self._is_checked:
            return
        kafka = confluent_kafka()
        options = {name: _expanded(name, value) for name, value in self._options.items()}
        try:
            kafka.admin.AdminClient({"bootstrap.servers": "localhost:9", "log_level": 0} | options)
        except (kafka.KafkaException, TypeError, ValueError) as error:
            text = error.args[0].str() if isinstance(error, kafka.KafkaException) else str(error)
            raise TopicError(f"kafka_options: {self.without_secrets(text)}. Correct that option.") from None
        self._is_checked = True

    def no_broker(self) -> TopicError:
        """Return the error that nobody answers, or that those who do refuse."""
        return self.refusal() or NoBrokerError(
            f"No Kafka broker answers at {', '.join(self.servers)}. Expected one, got no answer within "
            f"{REQUEST_SECONDS:.0f} s. Correct kafka_bootstrap_servers, or start one: "
            "python3 tools/kafka_broker.py start"
        )


def confluent_kafka() -> ModuleType:
    """Return the package `confluent_kafka`.

    Raises:
        TopicError: It is not installed.
    """
    try:
        import confluent_kafka
        import confluent_kafka.admin
    except ImportError as error:
        raise TopicError(
            f"The package confluent-kafka is not installed. Install it: {install_command('kafka')}"
        ) from error
    return confluent_kafka


def _expanded(name: str, value: Any) -> Any:
    return with_environment(f"kafka_options: {name}", value) if isinstance(value, str) else value


def with_environment(setting: str, text: str) -> str:
    """Return the text of a setting with the variables of the environment that it names as `${NAME}`.

    Raises:
        TopicError: A variable is not set.
    """

    def read(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise TopicError(f"{setting} names the variable {match[1]}, which is not set. Set it, or write the value.")
        return os.environ[match[1]]

    return _VARIABLE.sub(read, text)


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
