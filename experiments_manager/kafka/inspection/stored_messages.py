"""Whole messages of a partition, with key and time, from one offset to another: for looking at, not for training."""

from __future__ import annotations

import dataclasses
import time

from experiments_manager.kafka.connection import REQUEST_SECONDS, BrokerConnection, confluent_kafka
from experiments_manager.kafka.errors import TopicError

_AT_ONCE = 500


@dataclasses.dataclass(frozen=True)
class Message:
    """A message as it is stored.

    Attributes:
        offset: Its place in the partition.
        key: Its key, if it has one.
        value: Its value; empty where it has none.
        timestamp: Milliseconds since 1970 as its writer, or the broker, noted them; -1 where nobody did.
    """

    offset: int
    key: bytes | None
    value: bytes
    timestamp: int


def messages_between(connection: BrokerConnection, topic: str, partition: int, start: int, end: int) -> list[Message]:
    """Return the messages of a partition from offset `start` up to the one before `end`.

    Raises:
        TopicError: The broker does not answer, or refuses.
    """
    found: list[Message] = []
    options = {
        "enable_auto_commit": False,
        "enable_auto_offset_store": False,
        "enable_partition_eof": True,
        "auto_offset_reset": "earliest",
        "isolation_level": "read_uncommitted",
        # Little is asked for at a time; what librdkafka fetches ahead is thrown away.
        "queued_min_messages": 1000,
        "queued_max_messages_kbytes": 65536,
    }
    with connection.consumer(f"Topic {topic}, partition {partition}, cannot be read", **options) as consumer:
        consumer.assign([confluent_kafka().TopicPartition(topic, partition, start)])
        waiting_since = time.monotonic()
        while True:
            for message in consumer.consume(_AT_ONCE, 0.2):
                waiting_since = time.monotonic()
                error = message.error()
                if error and error.name() not in ("_PARTITION_EOF", "_TRANSPORT", "_ALL_BROKERS_DOWN"):
                    raise TopicError(f"Topic {topic}, partition {partition}, cannot be read: {error.str()}.")
                at_end = error is not None and error.name() == "_PARTITION_EOF"
                if at_end or (error is None and message.offset() >= end):
                    return found
                if error is None:
                    found.append(
                        Message(message.offset(), message.key(), message.value() or b"", message.timestamp()[1])
                    )
                    if message.offset() == end - 1:
                        return found
            if time.monotonic() - waiting_since > REQUEST_SECONDS:
                raise connection.no_broker()
