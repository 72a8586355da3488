"""Whole messages of a partition, with key and time, from one offset to another: for looking at, not for training."""

from __future__ import annotations

import dataclasses

from experiments_manager.kafka.connection import BrokerConnection
from experiments_manager.kafka.reading.reader import TopicReader
from experiments_manager.kafka.reading.rotation import Position


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


class _MessageReader(TopicReader):
    """Reads whatever is stored, a little at a time: what librdkafka fetches ahead is thrown away."""

    consumer_options = {
        **TopicReader.consumer_options,
        "auto_offset_reset": "earliest",
        "isolation_level": "read_uncommitted",
        "queued_min_messages": 1000,
        "queued_max_messages_kbytes": 65536,
    }


def messages_between(connection: BrokerConnection, topic: str, partition: int, start: int, end: int) -> list[Message]:
    """Return the messages of a partition from offset `start` up to the one before `end`.

    Raises:
        TopicError: The broker does not answer, or refuses.
    """
    with _MessageReader(connection, topic, Position({partition: start}), {partition: end}) as reader:
        return [
            Message(message.offset(), message.key(), message.value() or b"", message.timestamp()[1])
            for message in reader.messages()
        ]
