"""The grid of a deployment as our own process has it: the clients, and messages to and from them.

This module imports flwr: import it after `flower()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection

from flwr.app import Message

from experiments_manager.compat.flower import message_from_bytes, message_to_bytes
from experiments_manager.federated.deployment import wire
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.server.exchange import BaseGrid


class ForwardedGrid(BaseGrid):
    """A grid whose work is done in the process of Flower's ServerApp.

    Args:
        connection: To that process.
        check: Called when it is gone; raises where all of Flower is.
    """

    def __init__(self, connection: Connection, check: Callable[[], None]) -> None:
        self._connection, self._check = connection, check

    def get_node_ids(self) -> list[int]:
        """Return the numbers by which Flower knows the clients that are there."""
        return self._ask({"do": "nodes"})[0]["nodes"]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages and return their ids."""
        parts = [message_to_bytes(message) for message in messages]
        return self._ask({"do": "push"}, parts)[0]["ids"] if parts else []

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies that came to messages; each is returned once."""
        ids = list(message_ids)
        return [message_from_bytes(part) for part in self._ask({"do": "pull", "ids": ids})[1]] if ids else []

    def _ask(self, header: dict, parts: list[bytes] | None = None) -> tuple[dict, list[bytes]]:
        """Let the process of the ServerApp do something."""
        try:
            wire.send(self._connection, header, parts or [])
            return wire.receive(self._connection)
        except wire.Disconnected as error:
            self._check()
            raise FederationError(
                f"Flower's ServerApp ended: {error}. Expected it to run as long as the server. Its output is in the "
                "log of the SuperLink, flower-superlink.log."
            ) from error
