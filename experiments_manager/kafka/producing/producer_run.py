"""Who wrote a record, and how much of what a producer sent has arrived: what `--resume` goes by.

The key of a record is `<producer>:<start>-<partitions>-<samples>:<number>`: the producer's name, when it was first
started (milliseconds since 1970, hexadecimal), how many partitions the records take turns through, samples in a
record, and the number of the record from 0 on. Record `n` goes to the partition at place `n % partitions`, and an
idempotent producer never leaves a gap in a partition; so the last record of a partition says all about it.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Mapping

from experiments_manager.kafka.connection import BrokerConnection
from experiments_manager.kafka.errors import TopicError
from experiments_manager.kafka.inspection.stored_messages import Message, messages_between
from experiments_manager.kafka.topics import Topics

SEARCHED = 1_000_000
"""Newest offsets of a partition among which a producer's last record is looked for."""

_FIRST_BLOCK = 256
_KEY = re.compile(rb"(?P<name>[^:]+):(?P<start>[0-9a-f]+)-(?P<partitions>\d+)-(?P<samples>\d+):(?P<number>\d+)")


@dataclasses.dataclass(frozen=True)
class ProducerRun:
    """One sending of samples, which may have been interrupted and continued.

    Attributes:
        name: The producer's.
        started: When it was started first, in milliseconds since 1970.
        partitions: How many partitions the records take turns through.
        samples_per_record: Samples in a record.
        last: For each place in the turns that has arrived records, the number and value of the last one.
    """

    name: str
    started: int
    partitions: int
    samples_per_record: int
    last: Mapping[int, tuple[int, bytes]] = dataclasses.field(default_factory=dict)

    @classmethod
    def new(cls, name: str, partitions: int, samples_per_record: int) -> ProducerRun:
        """Return one that begins now."""
        return cls(name, time.time_ns() // 1_000_000, partitions, samples_per_record)

    @property
    def prefix(self) -> str:
        """What the keys of its records begin with."""
        return f"{self.name}:{self.started:x}-{self.partitions}-{self.samples_per_record}:"

    @property
    def arrived(self) -> int:
        """How many of its records are in the topic."""
        return sum((number - place) // self.partitions + 1 for place, (number, _) in self.last.items())

    @property
    def first_missing(self) -> int:
        """The lowest number of a record that is not in the topic."""
        return min(self._next(place) for place in range(self.partitions))

    @property
    def first_needed(self) -> int:
        """The lowest number that must be made again: to send it, or to compare it with what arrived."""
        return min([self.first_missing, *(number for number, _ in self.last.values())])

    def has(self, number: int) -> bool:
        """Return whether a record is in the topic."""
        return number < self._next(number % self.partitions)

    def require_same(self, number: int, value: bytes) -> None:
        """Refuse a record that is not what arrived under its number; only the last one of each place is looked at.

        Raises:
            TopicError: It differs, so that the data do not come in the same order as before.
        """
        known = self.last.get(number % self.partitions)
        if known is not None and known[0] == number and known[1] != value:
            raise self.differs(number)

    def differs(self, number: int) -> TopicError:
        """Return the error that a record is another one now than when it was sent."""
        return TopicError(
            f"Record {number} of producer {self.name} differs from the one in the topic, so --resume cannot tell which "
            "samples are missing. Expected the same data in the same order as before. Put settings and data back as "
            "they were (and make `dataset` follow from the seed), or produce into a new topic."
        )

    def _next(self, place: int) -> int:
        return self.last[place][0] + self.partitions if place in self.last else place


def find_producer_run(
    connection: BrokerConnection, topic: str, name: str, searched: int = SEARCHED
) -> ProducerRun | None:
    """Find how far a producer's newest sending came, by its last record in each partition.

    Args:
        connection: How to reach the broker.
        topic: Where it sent its records; it must be there.
        name: The producer's.
        searched: How many of the newest offsets of a partition are looked at, at the most.

    Returns:
        What arrived of it; `None` where there is nothing.

    Raises:
        TopicError: Older records would have to be searched, or two producers of that name wrote at the same time.
    """
    bounds = Topics(connection).range_of(topic, isolation_level="read_uncommitted").bounds
    partitions = sorted(bounds)  # the order of the turns
    newest = {
        place: _last_of(connection, topic, number, name, searched, *bounds[number])
        for place, number in enumerate(partitions)
    }
    found = {place: pair for place, pair in newest.items() if pair is not None}
    if not found:
        return None
    run = max((run for run, _ in found.values()), key=lambda run: run.started)
    for place, number in enumerate(partitions[: run.partitions]):
        if place not in found and bounds[number][0] > 0:
            raise TopicError(
                f"Topic {topic}, partition {number}, begins at offset {bounds[number][0]:,} and holds no record of "
                f"producer {name}: retention may have removed it, so --resume cannot tell how far it came. Expected "
                "its last record. Produce into a new topic, and keep records for longer (retention.ms)."
            )
    for other, message in found.values():
        if other.started != run.started and message.timestamp >= run.started:
            raise TopicError(
                f"Two producers called {name} wrote to topic {topic} at the same time, so --resume cannot tell which "
                "of them goes on. Expected a name of its own for each: give --proc-id. Produce into a new topic."
            )
    of_run = {place: message for place, (other, message) in found.items() if other.started == run.started}
    last = {place: (_number(message), message.value) for place, message in of_run.items() if place < run.partitions}
    return dataclasses.replace(run, last=last)


def _last_of(
    connection: BrokerConnection, topic: str, partition: int, name: str, searched: int, first: int, end: int
) -> tuple[ProducerRun, Message] | None:
    """Search a partition from its end for a producer's last record, in blocks that grow."""
    stop, size = end, _FIRST_BLOCK
    while stop > first:
        if end - stop >= searched:
            raise TopicError(
                f"No record of producer {name} is among the newest {end - stop:,} of topic {topic}, partition "
                f"{partition}, and --resume looks at no older ones. Expected one, or the partition's beginning. "
                "Correct --proc-id if it wrote under another, or produce without --resume into a new topic."
            )
        start = max(first, stop - size)
        for message in reversed(messages_between(connection, topic, partition, start, stop)):
            run = _run_of(message)
            if run is not None and run.name == name:
                return run, message
        stop, size = start, min(size * 4, 65536)
    return None


def _run_of(message: Message) -> ProducerRun | None:
    match = _KEY.fullmatch(message.key or b"")
    if match is None:
        return None
    name = match["name"].decode(errors="replace")
    return ProducerRun(name, int(match["start"], 16), int(match["partitions"]), int(match["samples"]))


def _number(message: Message) -> int:
    return int(message.key.rpartition(b":")[2])
