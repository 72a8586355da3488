"""A broker inside the process, for a first try without Java: librdkafka's own, made for its tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from experiments_manager.kafka.connection import REQUEST_SECONDS, BrokerConnection, confluent_kafka
from experiments_manager.kafka.topics import STRUCTURE_SUFFIX


@contextlib.contextmanager
def mock_cluster(topics: Sequence[str]) -> Iterator[BrokerConnection]:
    """Start a broker that lives as long as the block, on the loopback address.

    It makes topics by itself when a client asks for them, with four partitions each; it takes no request to create or
    to describe one. A partition keeps about 5 MB; older records are dropped.

    Args:
        topics: Topics to make, each with the one of its structure.

    Yields:
        How to reach it.
    """
    kafka = confluent_kafka()
    owner = kafka.Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
    brokers = owner.list_topics(timeout=REQUEST_SECONDS).brokers.values()
    for topic in topics:
        for name in (topic, topic + STRUCTURE_SUFFIX, topic + ".dead"):
            owner.list_topics(name, timeout=REQUEST_SECONDS)
    yield BrokerConnection([f"{broker.host}:{broker.port}" for broker in brokers])
    owner.flush(0)  # keeps it alive up to here
