"""Records that cannot be decoded: counted, sent to `<topic>.dead` with the reason, and too many of them refused."""

from __future__ import annotations

import logging
from typing import Any

from experiments_manager.kafka.connection import REQUEST_SECONDS, BrokerConnection, confluent_kafka
from experiments_manager.kafka.errors import TopicError
from experiments_manager.kafka.reading.decoding import DecodedSamples
from experiments_manager.kafka.reading.reader import read_range
from experiments_manager.kafka.topics import DEAD_SUFFIX, Topics, place_headers

logger = logging.getLogger(__name__)

_MOST_BYTES = 2**26
JUDGED_RECORDS = 1000
"""A share of bad records is one of at least so many."""


class BadShare:
    """Counts the records of a topic, and those of them that cannot be decoded.

    Args:
        topic: The topic.
        most: Share of bad records above which reading stops; `None`: never.
        read: Records that were read before.
        bad: How many of them were bad.
        remedy: How to allow more of them.
    """

    def __init__(
        self, topic: str, most: float | None, read: int = 0, bad: int = 0, *, remedy: str = "raise kafka_max_bad"
    ) -> None:
        self._topic, self._most, self._remedy = topic, most, remedy
        self._read, self._bad = read, bad

    def count(self, read: int, bad: int = 0) -> None:
        """Note that records were read, and how many of them cannot be decoded."""
        self._read += read
        self._bad += bad

    @property
    def is_exceeded(self) -> bool:
        """Whether too many are bad."""
        return self._most is not None and self._bad > self._most * max(self._read, JUDGED_RECORDS)

    def require_few(self, partition: int, offset: int, reason: object) -> None:
        """Raise where too many are bad, the last of them at a place and for a reason.

        Raises:
            TopicError: They are.
        """
        if self.is_exceeded:
            raise TopicError(
                f"{self._bad} of {self._read} records of topic {self._topic} cannot be decoded, the last at partition "
                f"{partition}, offset {offset}: {reason} Expected {self._most:.2%} at most (kafka_max_bad). They are "
                f"in topic {self._topic}{DEAD_SUFFIX}; correct what writes them, or {self._remedy}."
            )

    def require_any(self, partition: int, offset: int, reason: object) -> None:
        """Raise where too many are bad and none is good: the format must be another one.

        Raises:
            TopicError: That is so.
        """
        if self.is_exceeded and self._bad == self._read:
            raise TopicError(
                f"None of the first {self._read} records of topic {self._topic} can be decoded. partition {partition}, "
                f"offset {offset}: {reason} Set kafka_format to what wrote them, or write a hook kafka_decode."
            )


def dead_letter_headers(topic: str, partition: int, offset: int, reason: object) -> list[tuple[str, bytes]]:
    """Return the headers of a dead letter: where the record stands, and why it was left out."""
    return [*place_headers(topic, partition, offset), ("reason", str(reason).encode())]


class BadRecords:
    """Takes the records of a topic that cannot be decoded.

    Each goes to `<topic>.dead` once, whoever finds it and however often: its key is `<partition>:<offset>`.

    Args:
        connection: How to reach the broker.
        topic: Where the records are.
        most: Share of bad records above which reading stops.
        read: Records that were read before.
        bad: How many of them were bad.
        sends: Whether they go to the topic of dead letters; another process that reads the same may do that.
    """

    def __init__(
        self, connection: BrokerConnection, topic: str, most: float, read: int = 0, bad: int = 0, *, sends: bool = True
    ) -> None:
        self._connection, self.topic, self._sends = connection, topic, sends
        self._share = BadShare(topic, most, read, bad)
        self._sent: set[bytes] | None = None
        self._producer: Any = None

    def take(self, samples: DecodedSamples) -> None:
        """Send what is bad among samples, and count.

        Raises:
            TopicError: Too many are bad.
        """
        self._share.count(len(samples.ends), len(samples.bad))
        if not samples.bad:
            return
        index, why = next(iter(samples.bad.items()))
        last = (samples.records.partitions[index], samples.records.offsets[index], why)
        self._share.require_any(*last)
        if self._sends:
            for number, reason in samples.bad.items():
                self._send(samples, number, reason)
            self._producer.flush(REQUEST_SECONDS)  # before a checkpoint can hold that they were seen
        self._share.require_few(*last)

    def _send(self, samples: DecodedSamples, index: int, reason: str) -> None:
        records = samples.records
        partition, offset = records.partitions[index], records.offsets[index]
        key = f"{partition}:{offset}".encode()
        if self._sent is None:
            self._sent = self._open()
        if key in self._sent:
            return
        self._sent.add(key)
        logger.warning("Topic %s, partition %d, offset %d: record left out: %s", self.topic, partition, offset, reason)
        headers = dead_letter_headers(self.topic, partition, offset, reason)
        try:
            self._producer.produce(self.topic + DEAD_SUFFIX, records.values[index], key=key, headers=headers)
        except (BufferError, confluent_kafka().KafkaException) as error:  # larger than the broker takes, for instance
            logger.warning("It could not be sent to topic %s%s: %s", self.topic, DEAD_SUFFIX, error)

    def _open(self) -> set[bytes]:
        """Make the topic of dead letters where it is missing; return the keys that it holds."""
        topics, place = Topics(self._connection), self.topic + DEAD_SUFFIX
        topics.create(place, max_message_bytes=str(_MOST_BYTES))
        self._producer = confluent_kafka().Producer(
            self._connection.config(enable_idempotence=True, message_max_bytes=_MOST_BYTES)
        )
        with read_range(self._connection, topics.range_of(place)) as reader:
            return set(reader.keys())

    def close(self) -> None:
        """Wait until everything is sent."""
        if self._producer is not None:
            self._producer.flush(REQUEST_SECONDS)
