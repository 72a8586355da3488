"""Topics of samples: creating one, the ranges of its offsets, and the structure that is stored beside it."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.kafka.connection import REQUEST_SECONDS, BrokerConnection, confluent_kafka
from experiments_manager.kafka.errors import TopicError
from experiments_manager.kafka.records.structure import Structure

STRUCTURE_SUFFIX = ".structure"
DEAD_SUFFIX = ".dead"
_AGAIN_SECONDS = 0.02
_FULL_SECONDS = 0.1
_NOT_YET = ("NOT_LEADER_FOR_PARTITION", "LEADER_NOT_AVAILABLE", "UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_PARTITION")


@dataclasses.dataclass(frozen=True)
class TopicRange:
    """A part of a topic that does not change.

    Attributes:
        topic: Its name.
        bounds: For each partition the first offset and the one after the last.
    """

    topic: str
    bounds: Mapping[int, tuple[int, int]]

    @property
    def offsets(self) -> int:
        """How many offsets it spans: as many as records, unless transactions or compaction left gaps."""
        return sum(end - start for start, end in self.bounds.values())


@dataclasses.dataclass(frozen=True)
class Outgoing:
    """A record to be written.

    Attributes:
        topic: Where it goes.
        value: Its bytes; `None` for none.
        key: Its key.
        partition: The partition; `None`: by the key.
        headers: Names and values.
    """

    topic: str
    value: bytes | None
    key: bytes | None = None
    partition: int | None = None
    headers: Sequence[tuple[str, bytes]] = ()

    def hand_to(self, producer: Any) -> None:
        """Let a producer of confluent-kafka send it; wait while its queue is full."""
        place = {} if self.partition is None else {"partition": self.partition}
        while True:
            with contextlib.suppress(BufferError):
                producer.produce(self.topic, self.value, key=self.key, headers=list(self.headers), **place)
                return
            producer.poll(_FULL_SECONDS)


class Topics:
    """What a cluster is asked about topics.

    Args:
        connection: How to reach it.
    """

    def __init__(self, connection: BrokerConnection) -> None:
        self._connection = connection
        self._admin = confluent_kafka().admin.AdminClient(connection.config())

    def create(self, topic: str, partitions: int = 1, **config: str) -> None:
        """Create a topic, unless it is there already.

        Args:
            topic: Its name.
            partitions: How many partitions it gets.
            config: Options of the topic; `_` stands for `.`.

        Raises:
            TopicError: No broker answers, or it refuses.
        """
        kafka = confluent_kafka()
        if topic in self.names():  # so that nobody needs the right to create one that is there
            return
        options = {name.replace("_", "."): value for name, value in config.items()}
        new = kafka.admin.NewTopic(topic, num_partitions=partitions, replication_factor=-1, config=options)
        with self._connection.errors(f"Topic {topic} was not created"):
            try:
                self._admin.create_topics([new], request_timeout=REQUEST_SECONDS)[topic].result()
            except kafka.KafkaException as error:
                if error.args[0].code() != kafka.KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
        deadline = time.monotonic() + REQUEST_SECONDS
        while not self._is_ready(topic) and time.monotonic() < deadline:
            time.sleep(_AGAIN_SECONDS)

    def names(self) -> list[str]:
        """Return the topics that there are.

        Raises:
            TopicError: No broker answers.
        """
        with self._connection.errors("The topics were not found"):
            return sorted(self._admin.list_topics(timeout=REQUEST_SECONDS).topics)

    def id_of(self, topic: str) -> str | None:
        """Return what tells a topic from another one of the same name; `None` where the broker does not say."""
        kafka = confluent_kafka()
        try:
            known = self._admin.list_topics(topic, timeout=REQUEST_SECONDS)
            if known.controller_id not in known.brokers:  # librdkafka's mock: nobody would answer
                return None
            asked = self._admin.describe_topics(kafka.TopicCollection([topic]), request_timeout=REQUEST_SECONDS)
            return str(asked[topic].result().topic_id)
        except kafka.KafkaException:
            return None

    def partitions(self, topic: str) -> list[int]:
        """Return the partitions of a topic.

        Raises:
            TopicError: No broker answers, or the topic is missing.
        """
        with self._connection.errors(f"Topic {topic} was not found"):
            known = self._admin.list_topics(timeout=REQUEST_SECONDS).topics
        if topic not in known:
            produce = "Produce it first: experiments_manager kafka produce SETTINGS"
            hint = did_you_mean(topic, [name for name in known if not name.startswith("__")], produce)
            raise TopicError(f"Topic {topic} not found at {', '.join(self._connection.servers)}. {hint}")
        return sorted(known[topic].partitions)

    def _is_ready(self, topic: str) -> bool:
        """Return whether the broker that was asked knows who leads each partition; it learns of that a moment later."""
        found = self._admin.list_topics(timeout=REQUEST_SECONDS).topics.get(topic)
        return found is not None and all(part.leader >= 0 for part in found.partitions.values())

    def range_of(self, topic: str, isolation_level: str = "read_committed") -> TopicRange:
        """Return what a topic holds now.

        Args:
            topic: Its name.
            isolation_level: Whether open transactions stay outside; with `read_uncommitted` they count.

        Raises:
            TopicError: No broker answers, or the topic is missing.
        """
        kafka, partitions = confluent_kafka(), self.partitions(topic)
        with self._connection.consumer(_offsets_of(topic), isolation_level=isolation_level) as consumer:
            return TopicRange(
                topic, {number: _bounds(consumer, kafka.TopicPartition(topic, number)) for number in partitions}
            )

    def offsets_at(self, topic: str, milliseconds: int) -> dict[int, int]:
        """Return for each partition the offset of its first record from a time on; its end where there is none.

        Args:
            topic: Its name.
            milliseconds: The time, since 1970.

        Raises:
            TopicError: No broker answers, or the topic is missing.
        """
        kafka, ends = confluent_kafka(), self.range_of(topic).bounds
        wanted = [kafka.TopicPartition(topic, number, milliseconds) for number in ends]
        with self._connection.consumer(_offsets_of(topic)) as consumer:
            found = consumer.offsets_for_times(wanted, timeout=REQUEST_SECONDS)
        return {part.partition: part.offset if part.offset >= 0 else ends[part.partition][1] for part in found}

    def store_structure(self, topic: str, structure: Structure) -> None:
        """Store the structure of a topic's records beside it, in the compacted topic `<topic>.structure`.

        Raises:
            TopicError: No broker answers, or it refuses.
        """
        place = topic + STRUCTURE_SUFFIX
        self.create(place, cleanup_policy="compact")
        # Twice is as good as once here, and without a number of its own a producer begins half a second sooner.
        producer = confluent_kafka().Producer(self._connection.config(acks="all", linger_ms=0))
        failures = []
        producer.produce(
            place,
            structure.record,
            key=f"{structure.id:08x}",
            on_delivery=lambda error, message: failures.append(error) if error else None,
        )
        if producer.flush(REQUEST_SECONDS):
            raise self._connection.no_broker()
        if failures:
            raise TopicError(f"The structure was not stored in topic {place}: {failures[0].str()}.")


def _offsets_of(topic: str) -> str:
    return f"The offsets of topic {topic} were not found"


def _bounds(consumer: Any, place: Any) -> tuple[int, int]:
    """Ask for the bounds of a partition; a broker that is about to lead it refuses at first."""
    kafka, deadline = confluent_kafka(), time.monotonic() + REQUEST_SECONDS
    while True:
        try:
            return consumer.get_watermark_offsets(place, timeout=REQUEST_SECONDS)
        except kafka.KafkaException as error:
            if error.args[0].name() not in _NOT_YET or time.monotonic() >= deadline:
                raise
            time.sleep(_AGAIN_SECONDS)


def topic_name(session_name: str, split: str, proc_id: str | int = "") -> str:
    """Return the topic of a split by default: `<session_name>[<proc_id>].<split>`, in characters that Kafka takes."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", f"{session_name}{proc_id}.{split}")


def place_headers(topic: str, partition: int, offset: int) -> list[tuple[str, bytes]]:
    """Return the headers by which a record names another one: an answer its input, a dead letter its origin."""
    place = {"source_topic": topic, "source_partition": partition, "source_offset": offset}
    return [(name, str(value).encode()) for name, value in place.items()]
