"""Options of the verbs of `kafka`, and of `predict` where it reads and writes topics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments_manager.client.topic_options import TopicOptions, topic_of
from experiments_manager.common.errors import CommandLineError

if TYPE_CHECKING:
    from experiments_manager.client.endpoint import Endpoint
    from experiments_manager.kafka.connection import BrokerConnection
    from experiments_manager.settings import Settings

Servers = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT,…", help="Brokers to ask first, instead of the settings' kafka_bootstrap_servers."),
]


def connection_of(settings: Settings, servers: str | None) -> BrokerConnection:
    """Return how to reach the brokers that the settings, or the command line, name."""
    from experiments_manager.kafka.connection import BrokerConnection

    return BrokerConnection(server_list(servers) or settings.kafka_bootstrap_servers, settings.kafka_options)


def server_list(text: str | None) -> list[str]:
    """Return the addresses of a command line."""
    return [server.strip() for server in (text or "").split(",") if server.strip()]


TopicServers = Annotated[
    str | None, typer.Option(metavar="HOST:PORT,…", help="Kafka brokers. By default the run's, or localhost:9092.")
]
KafkaOption = Annotated[
    list[str],
    typer.Option(
        metavar="NAME=VALUE",
        help="An option of librdkafka; ${NAME} in it is a variable of the environment. May be given several times.",
    ),
]
Group = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Consumer group: its clients share a topic. By default one for each pair of them."
    ),
]
Instance = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Name of this client in its group: started again, it goes on at once."),
]
BatchSize = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Records of a topic in one request at most. By default 32.")
]
IdleTimeout = Annotated[
    float | None,
    typer.Option(min=0, metavar="SECONDS", help="End when a topic has no new record for so long. By default never."),
]
MaxBad = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="SHARE",
        help="End when more of a topic's records cannot be decoded. By default the run's kafka_max_bad.",
    ),
]

_ONLY_READING = ("group", "instance", "batch_size", "idle_timeout", "max_bad")


def check_topic_options(source: str | None, output: str | None, scale: float | None, given: Mapping[str, Any]) -> None:
    """Refuse options that have no effect, before all else.

    Args:
        source: What `--from` names.
        output: What `--to` names.
        scale: What `--scale` says.
        given: The options of topics by their names.

    Raises:
        CommandLineError: There is one.
        ClientError: A topic is not named, or its answers cannot go where they should.
    """
    reads, writes = topic_of(source), topic_of(output)
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if value not in (None, "", []) and not reads and name in _ONLY_READING:
            raise CommandLineError(f"{option} is for reading a topic. Expected --from kafka:TOPIC with it.")
        if value and not reads and not writes:
            raise CommandLineError(f"{option} is for topics. Expected --from kafka:TOPIC or --to kafka:TOPIC with it.")
    if reads and scale is not None:
        raise CommandLineError("--scale is for files and cameras. Expected records of a topic as the model takes them.")
    if reads and not writes:
        from experiments_manager.client.topic_answering import check_table

        check_table(output)


def topic_options(
    endpoint: Endpoint,
    servers: str | None,
    kafka_option: Sequence[str],
    *,
    group: str | None,
    instance: str | None,
    batch_size: int | None,
    idle_timeout: float | None,
    max_bad: float | None,
    count: int | None,
) -> TopicOptions:
    """Return what was chosen, by the command line or else by the run's settings.

    Raises:
        CommandLineError: An option of librdkafka has no value.
    """
    options = dict(endpoint.kafka_options)
    for text in kafka_option:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise CommandLineError(f"Invalid --kafka-option {name}. Expected NAME=VALUE.")
        options[name] = value
    addresses = server_list(servers) or endpoint.kafka_servers
    more: dict[str, Any] = {} if batch_size is None else {"batch_size": batch_size}
    more["max_bad"] = endpoint.kafka_max_bad if max_bad is None else max_bad
    return TopicOptions(addresses, options, group, instance, idle_timeout=idle_timeout, count=count, **more)
