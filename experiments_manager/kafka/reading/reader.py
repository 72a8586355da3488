"""Reading a topic: a range of it, or all that comes, in the order of `Rotation`."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Mapping
from typing import Any

from experiments_manager.kafka.connection import REQUEST_SECONDS, BrokerConnection, confluent_kafka, is_transient
from experiments_manager.kafka.errors import TopicError
from experiments_manager.kafka.reading.rotation import FetchedRecords, Position, Rotation
from experiments_manager.kafka.records.structure import Structure
from experiments_manager.kafka.topics import STRUCTURE_SUFFIX, TopicRange, Topics

_AT_ONCE = 1000
_BYTES_AT_ONCE = 2**21
"""What is taken from librdkafka at once: more falls out of the processor's cache before it is decoded."""
_BYTES_AHEAD = 2**26
"""Of a partition, while another one holds it up; the broker is asked for no more of it then."""
_SECONDS_BETWEEN_LOOKS = 10.0
"""From one look for new partitions to the next."""
_SECONDS_BETWEEN_QUESTIONS = 1.0
"""From one question whether a broker that was away answers again to the next: without new records nothing says so."""


class TopicReader:
    """Reads the records of a topic from a position on. Not for several threads.

    Partitions are assigned by hand and nothing is committed.

    Args:
        connection: How to reach the broker.
        topic: What to read.
        start: Where to begin.
        ends: For each partition the offset at which to stop; `None` to follow the topic as it grows, and to take up
            partitions that are added to it.
        patience: See `Rotation`.

    Attributes:
        consumer_options: librdkafka's options of the consumer; `_` stands for `.`.
    """

    consumer_options: Mapping[str, Any] = {
        "group_id": "experiments_manager",
        "enable_auto_commit": False,
        "enable_auto_offset_store": False,
        "enable_partition_eof": True,
        "auto_offset_reset": "error",
        "isolation_level": "read_committed",
        "fetch_wait_max_ms": 100,
        "fetch_queue_backoff_ms": 10,  # by default a second without anything once librdkafka has read far ahead
        "reconnect_backoff_max_ms": 2000,
    }

    def __init__(
        self,
        connection: BrokerConnection,
        topic: str,
        start: Position,
        ends: Mapping[int, int] | None = None,
        patience: float | None = None,
    ) -> None:
        self._kafka = confluent_kafka()
        self._connection, self._topic, self._ends = connection, topic, ends
        self.trouble: str | None = None
        """Why the broker cannot be reached at present; `None` while it can."""
        self._rotation, self._patience = Rotation(start, patience), patience
        self._left = {number for number, offset in start.offsets.items() if not self._is_over(number, offset)}
        for number in set(start.offsets) - self._left:
            self._rotation.finish(number)
        self._at_once, self._paused, self._keeps_messages = 1, set(), False
        self._fatal: TopicError | None = None
        self._looked = self._asked = time.monotonic()
        callbacks = {"error_cb": self._on_error, "on_commit": self._on_commit}
        self._consumer = self._kafka.Consumer(connection.config(**self.consumer_options) | callbacks)
        self._assign({number: start.offsets[number] for number in self._left})

    def _assign(self, offsets: Mapping[int, int]) -> None:
        self._consumer.assign([self._kafka.TopicPartition(self._topic, *place) for place in sorted(offsets.items())])

    @property
    def is_finished(self) -> bool:
        """Whether the range was read to its end."""
        return self._rotation.is_finished

    @property
    def is_caught_up(self) -> bool:
        """Whether there is no more to read at present, as far as the broker has told by the way."""
        return self._known_to_be_left() == 0

    @property
    def holds_back(self) -> bool:
        """Whether records wait for another partition's turn."""
        return self._rotation.holds_back

    @property
    def position(self) -> Position:
        """The place after what `read` returned last."""
        return self._rotation.position

    def read(self, seconds: float) -> FetchedRecords | None:
        """Return the next records, or `None` where their turn has not come within so many seconds.

        Raises:
            TopicError: The broker refuses, or retention has removed what was to be read.
        """
        if self._fatal is not None:
            raise self._fatal
        more_waits = False
        if not self.is_finished:
            asked = min(self._at_once, self._known_to_be_left() or self._at_once)  # librdkafka waits until all came
            messages = self._consumer.consume(asked, seconds)
            more_waits = len(messages) == asked == self._at_once
            self._sort_out(messages)
            self._hold_back()
        if self.trouble is not None and time.monotonic() - self._asked > _SECONDS_BETWEEN_QUESTIONS:
            self._ask_broker()
        if self._ends is None and time.monotonic() - self._looked > _SECONDS_BETWEEN_LOOKS:
            self._take_up_new_partitions()
        return self._rotation.take(whole_rounds=more_waits)

    def _known_to_be_left(self) -> int:
        ends = self.known_ends() if self._ends is None else self._ends
        return sum(max(0, ends.get(number, 0) - self._rotation.seen(number)) for number in self._rotation.partitions)

    def _sort_out(self, messages: list[Any]) -> None:
        """Take up what was consumed; errors that are those of no partition, too."""
        # One call into C for a list, not one line of Python a record: there are hundreds of thousands a second.
        numbers = set(map(self._kafka.Message.partition, messages))
        groups = itertools.groupby(messages, self._kafka.Message.partition) if len(numbers) > 1 else ()
        for number, group in groups or zip(numbers, [messages], strict=False):
            if number in self._rotation.partitions:
                self._take_up(number, list(group))
            elif number < 0:
                for message in group:
                    self._look_at_error(number, message.error())

    def messages(self) -> Iterator[Any]:
        """Yield the messages of confluent-kafka until the end of the range, instead of their values."""
        self._keeps_messages = True
        for records in self:
            yield from records.values

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Do nothing: who reads by itself has no group that must know how far it came."""

    def is_committed(self, offsets: Mapping[int, int]) -> bool:
        """Return whether no other reader can get what is before these offsets."""
        return True

    def known_ends(self) -> dict[int, int]:
        """Return where each partition ends, as far as the broker has told by the way."""
        parts = {number: self._kafka.TopicPartition(self._topic, number) for number in self._rotation.partitions}
        ends = {number: self._consumer.get_watermark_offsets(part, cached=True)[1] for number, part in parts.items()}
        return {number: end for number, end in ends.items() if end >= 0}

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()

    def __iter__(self) -> Iterator[FetchedRecords]:
        """Yield the records until the end of the range.

        Raises:
            TopicError: As `read`, or the broker has sent nothing for long.
        """
        since = time.monotonic()
        while not self.is_finished:
            records = self.read(0.1)
            if records is not None:
                yield records
                since = time.monotonic()
            elif time.monotonic() - since > REQUEST_SECONDS:
                raise self._connection.no_broker()

    def __enter__(self) -> TopicReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _is_over(self, number: int, offset: int) -> bool:
        return self._ends is not None and offset >= self._ends.get(number, 0)

    def _take_up(self, number: int, messages: list[Any]) -> None:
        """Hand what one partition sent to the rotation."""
        kind, at_end = self._kafka.Message, False
        if any(map(kind.error, messages)):
            errors = list(map(kind.error, messages))
            at_end = errors[-1] is not None and errors[-1].name() == "_PARTITION_EOF"
            for error in errors:
                self._look_at_error(number, error)
            next_offset = max(message.offset() + (message.error() is None) for message in messages)
            messages = [message for message, error in zip(messages, errors, strict=True) if error is None]
        else:
            next_offset = messages[-1].offset() + 1
        offsets = self._offsets(messages)
        values = messages if self._keeps_messages else list(map(kind.value, messages))
        if self._ends is not None and next_offset > self._ends[number]:  # what came after the range was fixed
            while offsets and offsets[-1] >= self._ends[number]:
                del offsets[-1], values[-1]
        if values:
            self.trouble = None
            self._at_once = max(1, min(_AT_ONCE, _BYTES_AT_ONCE // max(1, len(values[-1] or b""))))
        self._rotation.add(number, offsets, values, next_offset)
        if self._is_over(number, next_offset):
            if number not in self._left:  # what was under way when it was taken off
                return
            self._left.discard(number)
            self._rotation.finish(number)
            self._consumer.incremental_unassign([self._kafka.TopicPartition(self._topic, number)])
        elif at_end:
            self._rotation.at_end(number)
            self.trouble = None

    def _offsets(self, messages: list[Any]) -> list[int]:
        if messages and (first := messages[0].offset()) + len(messages) - 1 == (last := messages[-1].offset()):
            return list(range(first, last + 1))  # no gaps, and so nothing to ask
        return list(map(self._kafka.Message.offset, messages))

    def _look_at_error(self, number: int, error: Any) -> None:
        if error is None or error.name() == "_PARTITION_EOF" or is_transient(error):
            return
        if error.name() in ("_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"):
            raise self._removed(number)
        raise TopicError(f"Topic {self._topic}, partition {number}, cannot be read: {self._reason(error)}.")

    def _removed(self, number: int) -> TopicError:
        wanted = self._rotation.position.offsets.get(number, 0)
        start, end = Topics(self._connection).range_of(self._topic).bounds.get(number, (0, 0))
        return removed_error(self._topic, number, wanted, start, end)

    def _hold_back(self) -> None:
        """Ask for no more of partitions that are far ahead of the others, until these have come after."""
        ahead = {
            number
            for number in self._rotation.partitions
            if self._rotation.waiting_bytes(number) > (_BYTES_AHEAD // 2 if number in self._paused else _BYTES_AHEAD)
        }
        if ahead != self._paused:
            pause = [self._kafka.TopicPartition(self._topic, number) for number in ahead - self._paused]
            resume = [self._kafka.TopicPartition(self._topic, number) for number in self._paused - ahead]
            self._consumer.pause(pause)
            self._consumer.resume(resume)
            self._paused = ahead

    def _take_up_new_partitions(self) -> None:
        self._looked = time.monotonic()
        with contextlib.suppress(self._kafka.KafkaException):
            known = self._consumer.list_topics(self._topic, timeout=1.0).topics[self._topic].partitions
            for number in sorted(set(known) - set(self._rotation.partitions)):
                self._rotation.join(number, 0)
                self._consumer.incremental_assign([self._kafka.TopicPartition(self._topic, number, 0)])

    def _ask_broker(self) -> None:
        with contextlib.suppress(self._kafka.KafkaException):
            self._consumer.list_topics(self._topic, timeout=0.5)
            self.trouble = None
        self._asked = time.monotonic()

    def _on_error(self, error: Any) -> None:
        if error.name() in ("_ALL_BROKERS_DOWN", "_TRANSPORT", "_RESOLVE"):
            self.trouble = f"the broker at {', '.join(self._connection.servers)} does not answer"
        elif error.fatal():
            self._fatal = TopicError(f"Topic {self._topic} cannot be read: {self._reason(error)}.")
        elif error.name() in ("_AUTHENTICATION", "_SSL"):
            self.trouble = self._reason(error)

    def _on_commit(self, error: Any, parts: list[Any]) -> None:
        """Do nothing: nothing is committed."""

    def _reason(self, error: Any) -> str:
        return self._connection.without_secrets(error.str())


def removed_error(topic: str, partition: int, wanted: int, start: int, end: int) -> TopicError:
    """Return the error that a partition does not hold an offset any more."""
    return TopicError(
        f"Topic {topic}, partition {partition}, does not hold offset {wanted} any more. Expected it within {start} to "
        f"{end}, got {wanted}: retention removed it, or the topic was made again. Start a new run, or produce the "
        "topic again."
    )


def read_range(connection: BrokerConnection, part: TopicRange) -> TopicReader:
    """Return a reader of all records of a range."""
    start = Position({number: start for number, (start, _) in part.bounds.items()})
    return TopicReader(connection, part.topic, start, {number: end for number, (_, end) in part.bounds.items()})


def load_structures(connection: BrokerConnection, topic: str) -> dict[int, Structure]:
    """Return the structures that records of a topic have, by their id; the newest is the last.

    Raises:
        TopicError: No broker answers, or no structure is stored.
        RecordError: One is malformed.
    """
    topics = Topics(connection)
    structures = []
    if topic + STRUCTURE_SUFFIX in topics.names():
        with read_range(connection, topics.range_of(topic + STRUCTURE_SUFFIX)) as reader:
            structures = [Structure.from_record(value) for records in reader for value in records.values if value]
    if not structures:
        raise TopicError(
            f"No structure is stored for topic {topic}. Expected one in topic {topic}{STRUCTURE_SUFFIX}, got none. "
            "Produce the topic again, or set kafka_format to what wrote it."
        )
    return {structure.id: structure for structure in structures}
