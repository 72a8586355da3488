"""What the verbs of `kafka` have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
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
