"""What a topic holds, how large it is, how quickly it grows, and who has yet to read how much of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from experiments_manager.kafka.connection import REQUEST_SECONDS, BrokerConnection, confluent_kafka
from experiments_manager.kafka.errors import RecordError, TopicError
from experiments_manager.kafka.inspection.stored_messages import Message, messages_between
from experiments_manager.kafka.reading.decoding import find_bad
from experiments_manager.kafka.reading.reader import load_structures
from experiments_manager.kafka.records.composite import Ragged, Sparse
from experiments_manager.kafka.records.record_format import TopicFormat
from experiments_manager.kafka.records.structure import Structure
from experiments_manager.kafka.topics import STRUCTURE_SUFFIX, Topics

_MEASURED = 100
"""Records at the beginning of a partition, and as many at its end, from which sizes and times are taken."""


@dataclasses.dataclass(frozen=True)
class Group:
    """A consumer group that has committed offsets of the topic: a run commits as the group of its name.

    Attributes:
        name: Its name.
        committed: For each partition where it goes on.
        lag: Records that it has not read.
    """

    name: str
    committed: Mapping[int, int]
    lag: int


@dataclasses.dataclass(frozen=True)
class TopicReport:
    """What is known of a topic.

    Attributes:
        topic: Its name.
        bounds: For each partition the first offset and the one after the last.
        structures: Those that are stored beside it, the newest last; none where another program writes it.
        problem: Why there are no decoded samples, in a sentence; `None` where there are.
        samples: The first samples: for each leaf of the newest structure, a list.
        values: The first records as they are stored.
        mean_bytes: Bytes of a record with its key, on average over those that were read; 0 without any.
        measured: How many that were.
        first_time: When the oldest of them was written, in milliseconds since 1970; `None` if unknown.
        last_time: When the newest was.
        groups: Who reads it; `None` where the broker does not say.
    """

    topic: str
    bounds: Mapping[int, tuple[int, int]]
    structures: Sequence[Structure]
    problem: str | None
    samples: Sequence[Sequence[Any]]
    values: Sequence[bytes]
    mean_bytes: float
    measured: int
    first_time: int | None
    last_time: int | None
    groups: Sequence[Group] | None

    @property
    def records(self) -> int:
        """Offsets from first to last: as many as records, unless transactions or compaction left gaps."""
        return sum(end - start for start, end in self.bounds.values())

    @property
    def bytes(self) -> int:
        """Bytes of all records before compression, by the mean of those that were read."""
        return round(self.records * self.mean_bytes)

    @property
    def rate(self) -> float | None:
        """Records a second between the oldest and the newest; `None` where that is not known."""
        if self.first_time is None or self.last_time is None or self.last_time <= self.first_time:
            return None
        return 1000 * (self.records - 1) / (self.last_time - self.first_time)


def inspect_topic(connection: BrokerConnection, topic: str, samples: int) -> TopicReport:
    """Look at a topic.

    Args:
        connection: How to reach the broker.
        topic: Its name.
        samples: How many of its first samples to decode.

    Raises:
        TopicError: No broker answers, or the topic is missing.
    """
    bounds = Topics(connection).range_of(topic, isolation_level="read_uncommitted").bounds
    count = max(samples, _MEASURED)
    heads = {
        number: _read(connection, topic, number, start, min(end, start + count))
        for number, (start, end) in bounds.items()
    }
    tails = {
        number: _read(connection, topic, number, max(start + len(heads[number]), end - _MEASURED), end)
        for number, (start, end) in bounds.items()
    }
    seen = [message for number in bounds for message in [*heads[number], *tails[number]]]
    times = [message.timestamp for message in seen if message.timestamp > 0]
    values = [message.value for number in bounds for message in heads[number]][: max(1, samples)]
    structures, decoded, problem = _decoded(connection, topic, values, samples)
    return TopicReport(
        topic=topic,
        bounds=bounds,
        structures=structures,
        problem=problem,
        samples=decoded,
        values=values,
        mean_bytes=sum(len(m.value) + len(m.key or b"") for m in seen) / len(seen) if seen else 0.0,
        measured=len(seen),
        first_time=min(times, default=None),
        last_time=max(times, default=None),
        groups=groups_of(connection, topic, bounds),
    )


def _read(connection: BrokerConnection, topic: str, number: int, start: int, end: int) -> list[Message]:
    return messages_between(connection, topic, number, start, end) if end > start else []


def _decoded(
    connection: BrokerConnection, topic: str, values: Sequence[bytes], samples: int
) -> tuple[list[Structure], list[Any], str | None]:
    """Return the structures, the leaves of the first samples, or why there are none."""
    if topic + STRUCTURE_SUFFIX not in Topics(connection).names():
        return [], [], f"No structure is stored for topic {topic}: another program writes it, and its records stay raw."
    try:
        structures = load_structures(connection, topic)
        form = TopicFormat(structures)
    except (TopicError, RecordError) as error:
        return [], [], str(error)
    bad = find_bad(form.decode, values)
    good = [value for number, value in enumerate(values) if number not in bad]
    problem = f"Some of the first records cannot be decoded. {next(iter(bad.values()))}" if bad else None
    if not good:
        return list(structures.values()), [], problem or "The topic holds no records."
    nest, counts = form.decode(good)
    count = min(samples, int(counts.sum()))
    leaves = [[_sample(leaf, number) for number in range(count)] for leaf in form.structure.flatten(nest)]
    return list(structures.values()), leaves, problem


def _sample(leaf: Any, number: int) -> Any:
    """Return one sample of a leaf; of a ragged or sparse one, the values alone."""
    return leaf[number : number + 1].values if isinstance(leaf, Ragged | Sparse) else leaf[number]


def groups_of(connection: BrokerConnection, topic: str, bounds: Mapping[int, tuple[int, int]]) -> list[Group] | None:
    """Return the consumer groups with committed offsets of a topic; `None` where the broker does not tell."""
    kafka = confluent_kafka()
    admin = kafka.admin.AdminClient(connection.config())
    try:
        listed = admin.list_consumer_groups(request_timeout=REQUEST_SECONDS).result()
        groups = []
        for name in sorted(group.group_id for group in listed.valid):
            asked = kafka.ConsumerGroupTopicPartitions(name)
            offsets = admin.list_consumer_group_offsets([asked], request_timeout=REQUEST_SECONDS)[name].result()
            committed = {
                part.partition: part.offset
                for part in offsets.topic_partitions
                if part.topic == topic and part.offset >= 0 and part.partition in bounds
            }
            if committed:
                lag = sum(end - max(start, committed.get(number, start)) for number, (start, end) in bounds.items())
                groups.append(Group(name, committed, lag))
        return groups
    except kafka.KafkaException:
        return None
