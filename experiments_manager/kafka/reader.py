"""Reading a range of a topic in a thread, in an order that follows from the offsets alone."""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import queue
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from experiments_manager.kafka.connection import Connection, confluent_kafka
from experiments_manager.kafka.errors import TopicError
from experiments_manager.kafka.structure import Structure
from experiments_manager.kafka.topics import STRUCTURE_SUFFIX, TopicRange, Topics

BLOCK = 512
"""Offsets of one partition that are read before it is the next partition's turn."""

_AT_ONCE = 2000
_BYTES_AT_ONCE = 2**21
"""What is taken from librdkafka at once: more falls out of the processor's cache before it is decoded."""

_WAITING = 8
_POLL_SECONDS = 0.1


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Some records of one partition, in the order of their offsets.

    Attributes:
        partition: Its number.
        offsets: Offset of each record.
        values: Value of each record; `None` where it has none.
        next_offset: Where reading goes on in this partition after these records.
    """

    partition: int
    offsets: list[int]
    values: list[bytes | None]
    next_offset: int


class RangeReader:
    """Reads all records of a range once.

    Partitions are assigned by hand, nothing is committed. The partitions take turns, a block of offsets each, whatever
    the order in which the broker sends them: the same range gives the same records in the same order, also when it is
    continued at a position.

    Args:
        connection: How to reach the broker.
        part: What to read.
        position: The next offset of each partition, to continue; its beginning by default.
        block: Offsets in a turn.
    """

    def __init__(
        self, connection: Connection, part: TopicRange, position: Mapping[int, int] | None = None, block: int = BLOCK
    ) -> None:
        self._connection, self._part, self._block = connection, part, block
        self._position = {number: start for number, (start, _) in part.bounds.items()} | dict(position or {})
        self._arrived: queue.Queue[Any] = queue.Queue(_WAITING)
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def __iter__(self) -> Iterator[Chunk]:
        """Yield the records, in chunks of a block at the most.

        Raises:
            TopicError: The broker refuses, or retention has removed what was to be read.
        """
        bounds, position = self._part.bounds, self._position
        seen = dict(position)
        offsets: dict[int, list[int]] = {number: [] for number in bounds}
        values: dict[int, list[bytes | None]] = {number: [] for number in bounds}
        turn = 0
        self._start()
        while any(position[number] < end for number, (_, end) in bounds.items()):
            turn += 1
            for number, (start, end) in sorted(bounds.items()):
                stop = min(start + turn * self._block, end)
                while position[number] < stop:
                    while seen[number] <= position[number]:
                        arrived, new_offsets, new_values, next_offset = self._next_arrival()
                        fresh = bisect.bisect_left(new_offsets, seen[arrived])  # librdkafka may send some twice
                        offsets[arrived] += new_offsets[fresh:]
                        values[arrived] += new_values[fresh:]
                        seen[arrived] = max(seen[arrived], next_offset)
                    position[number] = min(seen[number], stop)
                    count = bisect.bisect_left(offsets[number], position[number])
                    chunk = Chunk(number, offsets[number][:count], values[number][:count], position[number])
                    del offsets[number][:count], values[number][:count]
                    if count:
                        yield chunk

    def close(self) -> None:
        """End reading, also in the middle."""
        self._closed.set()
        if self._thread:
            self._thread.join()

    def __enter__(self) -> RangeReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="kafka reader", daemon=True)
            self._thread.start()

    def _next_arrival(self) -> tuple[int, list[int], list[bytes | None], int]:
        while not self._closed.is_set():
            with contextlib.suppress(queue.Empty):
                arrival = self._arrived.get(timeout=_POLL_SECONDS)
                if isinstance(arrival, BaseException):
                    raise arrival
                return arrival
        raise RuntimeError("this reader was closed; make a new one")

    def _run(self) -> None:
        try:
            self._read()
        except BaseException as error:
            self._hand_over(error)

    def _read(self) -> None:
        """In the thread: hand over what the broker sends, a partition at a time, until the range is read."""
        kafka = confluent_kafka()
        consumer = kafka.Consumer(
            self._connection.config(
                group_id="experiments_manager",
                enable_auto_commit=False,
                enable_auto_offset_store=False,
                enable_partition_eof=True,
                auto_offset_reset="error",
                isolation_level="read_committed",
            )
        )
        topic, bounds, at_once = self._part.topic, self._part.bounds, 1
        left = {number for number, (_, end) in bounds.items() if self._position[number] < end}
        try:
            consumer.assign([kafka.TopicPartition(topic, number, self._position[number]) for number in sorted(left)])
            while left and not self._closed.is_set():
                by_partition: dict[int, list[Any]] = {}
                for message in consumer.consume(at_once, _POLL_SECONDS):
                    by_partition.setdefault(message.partition(), []).append(message)
                for number, messages in by_partition.items():
                    if number in bounds and number not in left:
                        continue
                    arrival = self._arrival(number, messages)
                    self._hand_over(arrival)
                    size = len(arrival[2][-1] or b"") if arrival[2] else 0
                    at_once = max(1, min(_AT_ONCE, _BYTES_AT_ONCE // max(1, size)))
                    if arrival[-1] >= bounds[number][1]:
                        left.discard(number)
                        consumer.incremental_unassign([kafka.TopicPartition(topic, number)])
        finally:
            consumer.close()

    def _arrival(self, number: int, messages: list[Any]) -> tuple[int, list[int], list[bytes | None], int]:
        """Return the records among messages of one partition, and where it goes on: also the end of it is a message."""
        last = messages[-1]
        if any(message.error() for message in messages):
            for message in messages:
                error = message.error()
                if error and error.name() == "_AUTO_OFFSET_RESET":
                    raise self._removed(number)
                if error and error.name() != "_PARTITION_EOF":
                    raise TopicError(f"Topic {self._part.topic}, partition {number}, cannot be read: {error.str()}.")
            messages = [message for message in messages if not message.error()]
        next_offset = last.offset() + (last.error() is None)
        return (
            number,
            [message.offset() for message in messages],
            [message.value() for message in messages],
            next_offset,
        )

    def _removed(self, number: int) -> TopicError:
        wanted = self._position[number]
        start, end = Topics(self._connection).range_of(self._part.topic).bounds.get(number, (0, 0))
        return TopicError(
            f"Topic {self._part.topic}, partition {number}, does not hold offset {wanted} any more. "
            f"Expected it within {start} to {end}, got {wanted}: retention removed it, or the topic was made again. "
            "Start a new run, or produce the topic again."
        )

    def _hand_over(self, arrival: Any) -> None:
        while not self._closed.is_set():
            try:
                self._arrived.put(arrival, timeout=_POLL_SECONDS)
                return
            except queue.Full:
                continue


def load_structures(connection: Connection, topic: str) -> dict[int, Structure]:
    """Return the structures that records of a topic have, by their id; the newest is the last.

    Raises:
        TopicError: No broker answers, or no structure is stored.
        RecordError: One is malformed.
    """
    part = Topics(connection).range_of(topic + STRUCTURE_SUFFIX)
    with RangeReader(connection, part) as reader:
        structures = [Structure.from_record(value) for chunk in reader for value in chunk.values if value]
    if not structures:
        raise TopicError(
            f"No structure is stored for topic {topic}. Expected one in topic {topic}{STRUCTURE_SUFFIX}, got none. "
            "Produce the topic again, or set kafka_format to what wrote it."
        )
    return {structure.id: structure for structure in structures}
