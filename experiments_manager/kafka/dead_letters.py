"""Records that cannot be used: counted, too many of them refused, and written to `<topic>.dead` with the reason.

Who trains and who answers write the same: the record as it is, under the key `<partition>:<offset>`, with headers that
say where it stands (`source_topic`, `source_partition`, `source_offset`), why it was left out (`reason`), and its own
key (`source_key`), where that is known. Earlier releases answered with the record's own key; the headers, by which
letters are recognized, are the same.
"""

from __future__ import annotations

import logging
from typing import Any

from experiments_manager.kafka.connection import REQUEST_SECONDS, BrokerConnection, confluent_kafka
from experiments_manager.kafka.errors import TopicError
from experiments_manager.kafka.reading.decoding import DecodedSamples
from experiments_manager.kafka.reading.reader import read_range
from experiments_manager.kafka.topics import DEAD_SUFFIX, Outgoing, Topics, place_headers

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


class DeadLetters:
    """What is written for the records of a topic that cannot be used.

    Args:
        connection: How to reach the broker.
        source: The topic of the records.

    Attributes:
        topic: The topic of the letters; it is made with the first of them.
    """

    def __init__(self, connection: BrokerConnection, source: str) -> None:
        self._connection, self._source = connection, source
        self.topic = source + DEAD_SUFFIX
        self._exists = False

    def require_topic(self) -> None:
        """Make the topic where it is missing.

        Raises:
            TopicError: It cannot be made.
        """
        if not self._exists:
            Topics(self._connection).create(self.topic, max_message_bytes=str(_MOST_BYTES))
            self._exists = True

    def letter(
        self, partition: int, offset: int, value: bytes | None, reason: object, key: bytes | None = None
    ) -> Outgoing:
        """Return what is written for a record.

        Args:
            partition: Where the record stands.
            offset: Where in the partition.
            value: What it is.
            reason: Why it is left out.
            key: Its own key, where that is known.

        Raises:
            TopicError: The topic of dead letters cannot be made.
        """
        self.require_topic()
        headers = [*place_headers(self._source, partition, offset), ("reason", str(reason).encode())]
        headers += [("source_key", key)] if key is not None else []
        return Outgoing(self.topic, value, f"{partition}:{offset}".encode(), None, headers)

    def places(self) -> set[tuple[int, int]]:
        """Return partition and offset of each record for which there is a letter.

        Raises:
            TopicError: The topic cannot be made or read.
        """
        self.require_topic()
        with read_range(self._connection, Topics(self._connection).range_of(self.topic)) as reader:
            headers = [dict(message.headers() or []) for message in reader.messages()]
        places = [(one.get("source_partition"), one.get("source_offset")) for one in headers]
        return {(int(partition), int(offset)) for partition, offset in places if partition and offset}


class BadRecords:
    """Takes the records of a topic that cannot be decoded, each of them once, whoever finds it and however often.

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
        self._share, self._letters = BadShare(topic, most, read, bad), DeadLetters(connection, topic)
        self._sent: set[tuple[int, int]] = set()
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
        if self._producer is None:
            self._sent = self._letters.places()
            self._producer = confluent_kafka().Producer(
                self._connection.config(enable_idempotence=True, message_max_bytes=_MOST_BYTES)
            )
        if (partition, offset) in self._sent:
            return
        self._sent.add((partition, offset))
        logger.warning("Topic %s, partition %d, offset %d: record left out: %s", self.topic, partition, offset, reason)
        letter = self._letters.letter(partition, offset, records.values[index], reason)
        try:
            self._producer.produce(letter.topic, letter.value, key=letter.key, headers=list(letter.headers))
        except (BufferError, confluent_kafka().KafkaException) as error:  # larger than the broker takes, for instance
            logger.warning("It could not be sent to topic %s: %s", letter.topic, error)

    def close(self) -> None:
        """Wait until everything is sent."""
        if self._producer is not None:
            self._producer.flush(REQUEST_SECONDS)
