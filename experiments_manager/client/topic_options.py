"""How `predict` is told of Kafka topics."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from experiments_manager.client.errors import ClientError

if TYPE_CHECKING:
    from experiments_manager.kafka.connection import BrokerConnection

BATCH_SIZE = 32
PREFIX = "kafka:"


def topic_of(place: str | None) -> str | None:
    """Return the topic that `kafka:TOPIC` names, or `None` for any other place.

    Raises:
        ClientError: The topic's name is missing.
    """
    if place is None or not place.startswith(PREFIX):
        return None
    if place == PREFIX:
        raise ClientError(f"No topic is named. Expected {PREFIX}TOPIC, got {place}.")
    return place.removeprefix(PREFIX)


@dataclasses.dataclass(frozen=True)
class TopicOptions:
    """How topics are read and written.

    Attributes:
        servers: `host:port` of one broker or more.
        options: Further options of librdkafka.
        group: The consumer group. By default one that follows from the model and both topics; for a table a new one,
            so that it holds the whole topic.
        instance: Name of this client in the group.
        batch_size: Records in one request at most.
        idle_timeout: End when no record came for so many seconds; `None`: never.
        count: How many records to answer at most.
        max_bad: Share of records that cannot be decoded above which it ends, judged over at least 1,000; `None`: never.
    """

    servers: Sequence[str]
    options: Mapping[str, Any] = dataclasses.field(repr=False)
    group: str | None = None
    instance: str | None = None
    batch_size: int = BATCH_SIZE
    idle_timeout: float | None = None
    count: int | None = None
    max_bad: float | None = None

    @property
    def connection(self) -> BrokerConnection:
        """How to reach the broker."""
        from experiments_manager.kafka.connection import BrokerConnection

        return BrokerConnection(self.servers, self.options)
