"""Reading a topic together with others: each partition by one member of a consumer group, its offset handed on exactly.

A member that has to give partitions away trains no further until a checkpoint is whole that holds what it had trained
on; then it commits the offsets, and the next owner goes on there. What a member commits names the runs that had the
partition and the offsets at which they took it over. So a run that was killed sees, when it comes back, whether another
one went on from before its own checkpoint, and does not count those samples itself.
"""

from __future__ import annotations

import collections
import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from experiments_manager.kafka.connection import REQUEST_SECONDS, BrokerConnection, confluent_kafka
from experiments_manager.kafka.errors import NoBrokerError, PartitionsLostError, TopicError
from experiments_manager.kafka.reading.reader import TopicReader
from experiments_manager.kafka.reading.rotation import Position, Rotation

logger = logging.getLogger(__name__)

CLOSING_SECONDS = 5.0
"""What the end of a run waits for the last commit, where the broker is away."""
_MOST_OWNERS = 20
"""Of a partition, that a commit names; brokers take 4096 bytes of it."""
_MOST_SECONDS_OF_A_STEP = 3600
"""After which a member that does not come back to its consumer loses its partitions; a validation may take long."""


class GroupReader(TopicReader):
    """Reads the partitions that a consumer group assigns to this member.

    Args:
        connection: How to reach the broker.
        topic: What to read.
        group: The consumer group.
        run: Name of the run, for the commits.
        start: Where to begin in partitions for which nothing is committed.
        own: Offsets of the run's checkpoint, which are ahead of what it could commit before it was killed.
        patience: See `Rotation`.
        release: Called when partitions are to be given away; waits until a checkpoint is whole, and returns its place.
    """

    def __init__(
        self,
        connection: BrokerConnection,
        topic: str,
        group: str,
        run: str,
        start: Mapping[int, int],
        own: Mapping[int, int],
        patience: float | None,
        release: Callable[[], Position | None],
    ) -> None:
        self._group, self._run, self._start, self._own = group, run, dict(start), dict(own)
        self._release = release
        self._owners: dict[int, Owners] = {}
        self._begun: dict[int, int] = {}
        self._lost: list[int] = []
        self._begins_again = False
        self._to_commit: collections.deque[dict[int, int]] = collections.deque(maxlen=1)
        self._committed: dict[int, int] = {}
        self._is_under_way = False
        self.consumer_options = {
            **TopicReader.consumer_options,
            "group_id": group,
            "partition_assignment_strategy": "cooperative-sticky",
            "group_instance_id": run,  # a run that comes back at once keeps its partitions
            "session_timeout_ms": 10_000,
            "max_poll_interval_ms": _MOST_SECONDS_OF_A_STEP * 1000,
        }
        super().__init__(connection, topic, Position({}), None, patience)

    def _assign(self, offsets: Mapping[int, int]) -> None:
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    @property
    def is_finished(self) -> bool:
        """A group's topic never ends."""
        return False

    def read(self, seconds: float) -> Any:
        """Return the next records; see `TopicReader.read`.

        Raises:
            PartitionsLostError: The group gave partitions to others without waiting for this member.
        """
        records = super().read(seconds)
        if self._to_commit:
            self._commit(self._to_commit.popleft(), wait=False)
        if self._lost:
            raise PartitionsLostError(
                f"Partitions {', '.join(map(str, self._lost))} of topic {self._topic} may have been given to other "
                f"members of the group {self._group}, since this one was not in touch with the broker for too long."
            )
        if not self._rotation.partitions:
            self.trouble = f"the group {self._group} assigns no partition of topic {self._topic} to this run at present"
        elif self.trouble and "assigns no partition" in self.trouble:
            self.trouble = None
        return records

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Let the offsets of a whole checkpoint be committed; called in any thread.

        The reading thread does it: a consumer lets nobody commit while it waits for records.
        """
        self._to_commit.append(dict(offsets))

    def is_committed(self, offsets: Mapping[int, int]) -> bool:
        """Return whether the broker has confirmed these offsets; called in any thread."""
        return all(offset <= self._committed.get(number, -1) for number, offset in offsets.items())

    def close(self) -> None:
        """Commit what is still to be committed, if the broker answers within a moment, and leave it."""
        try:
            if self._to_commit and not self._lost:
                self._commit_in_the_end(self._to_commit.popleft())
        finally:
            leave(super().close, self._group, CLOSING_SECONDS if self.trouble else 3 * CLOSING_SECONDS)

    def _commit_in_the_end(self, offsets: Mapping[int, int]) -> None:
        until = time.monotonic() + CLOSING_SECONDS
        self._is_under_way = False
        while not self.is_committed(self._owned(offsets)):
            if time.monotonic() > until:
                logger.warning(
                    "The offsets of the last checkpoint were not committed to the group %s, since the broker does not "
                    "answer. If another run of it goes on from before them, a resume takes an older checkpoint.",
                    self._group,
                )
                return
            if not self._is_under_way:
                self._is_under_way = True
                self._commit(offsets, wait=False)
            self._consumer.poll(0.05)  # calls `_on_commit`

    def _commit(self, offsets: Mapping[int, int], *, wait: bool) -> None:
        """Commit offsets of those partitions that are still this member's."""
        owned = self._owned(offsets)
        if owned:
            with self._connection.errors(f"Offsets of the group {self._group} were not committed"):
                self._consumer.commit(offsets=self._places(owned), asynchronous=not wait)
            if wait:
                self._committed = self._committed | owned

    def _owned(self, offsets: Mapping[int, int]) -> dict[int, int]:
        begun = self._begun
        return {number: max(offset, begun[number]) for number, offset in offsets.items() if number in begun}

    def _on_commit(self, error: Any, parts: list[Any]) -> None:
        """Take note of what was committed without waiting."""
        self._is_under_way = False
        done = {} if error else {part.partition: part.offset for part in parts if part.error is None}
        self._committed = self._committed | done

    def _places(self, offsets: Mapping[int, int]) -> list[Any]:
        return [
            self._kafka.TopicPartition(self._topic, number, offset, metadata=json.dumps(self._owners[number]))
            for number, offset in sorted(offsets.items())
        ]

    def _sort_out(self, messages: list[Any]) -> None:
        """Take up what was consumed, unless partitions were given away meanwhile: then all is read again."""
        if not self._begins_again:
            super()._sort_out(messages)
            return
        self._begins_again = False
        kept = [self._kafka.TopicPartition(self._topic, *place) for place in sorted(self._position_again().items())]
        if kept:  # seeking is refused of a partition whose fetching has not begun
            self._consumer.incremental_unassign(kept)
            self._consumer.incremental_assign(kept)

    def _position_again(self) -> dict[int, int]:
        return {number: self._begun[number] for number in self._rotation.partitions}

    def _take_up_new_partitions(self) -> None:
        """No-op: the consumer group assigns new partitions."""

    def _on_assign(self, consumer: Any, parts: list[Any]) -> None:
        """Begin to read partitions where the group, or this run's own checkpoint, has come to, and say so."""
        begin, committed = {}, []
        with self._or_lost(parts, f"The offsets of the group {self._group} were not found"):
            committed = consumer.committed(parts, timeout=REQUEST_SECONDS) if parts else []
        for part in committed:
            number, owners = part.partition, owners_of(part.metadata)
            place, own = part.offset, self._own.get(number, 0)
            if place < 0:
                place = max(self._start.get(number, 0), own)
            elif owners and owners[-1][0] == self._run and own >= owners[-1][1]:
                place = own  # this run's checkpoint; ahead of the commit, or behind it where the newest was damaged
            elif (since := taken_over(owners, self._run)) is not None and since < own:
                self._lost.append(number)
            if not owners or owners[-1][0] != self._run:
                owners = [*owners, (self._run, place)][-_MOST_OWNERS:]
            begin[number], self._owners[number] = place, owners
        for number, offset in begin.items():
            self._rotation.join(number, offset)
        self._begun |= begin
        consumer.incremental_assign([self._kafka.TopicPartition(self._topic, *place) for place in begin.items()])
        if begin and not self._lost:
            with self._or_lost(parts, f"Partitions were not taken over in the group {self._group}"):
                consumer.commit(offsets=self._places(begin), asynchronous=False)
                self._committed = self._committed | begin

    def _on_revoke(self, consumer: Any, parts: list[Any]) -> None:
        """Give partitions away once a checkpoint holds what was trained on of them."""
        place = None if self._lost else self._release()
        if place is None:  # reading ends
            return
        self._to_commit.clear()
        with self._or_lost(parts, f"Offsets of the group {self._group} were not committed"):
            self._commit(place.offsets, wait=True)
        self._own |= place.offsets
        revoked = [part.partition for part in parts]
        for number in revoked:
            self._begun.pop(number, None)
        # What was read ahead is forgotten, so the partitions that stay are read again from the checkpoint on.
        begun = self._begun
        self._begun |= {
            number: max(offset, begun[number]) for number, offset in place.offsets.items() if number in begun
        }
        self._rotation = Rotation(Position(dict(self._begun), place.turn), self._patience)
        if self._paused:
            self._consumer.resume([self._kafka.TopicPartition(self._topic, number) for number in self._paused])
        self._paused, self._begins_again = set(), True

    @contextlib.contextmanager
    def _or_lost(self, parts: list[Any], what: str) -> Iterator[None]:
        """Count partitions as lost where no broker answers inside: the run goes back to what the group knows of it."""
        try:
            with self._connection.errors(what):
                yield
        except NoBrokerError:
            self._lost += [part.partition for part in parts]

    def _on_lost(self, consumer: Any, parts: list[Any]) -> None:
        self._lost += [part.partition for part in parts]


Owners = list[tuple[str, int]]
"""The runs that had a partition, one after the other, and the offsets at which they took it over."""


def owners_of(metadata: str | None) -> Owners:
    """Read the runs that a commit names; none where another program committed."""
    with contextlib.suppress(ValueError, TypeError):
        return [(str(run), int(since)) for run, since in json.loads(metadata or "[]")]
    return []


def taken_over(owners: Owners, run: str) -> int | None:
    """Return the offset from which others trained on a partition after a run; `None` where none did."""
    last = max((index for index, (name, _) in enumerate(owners) if name == run), default=-1)
    after = owners[last + 1 :]
    return min(since for _, since in after) if after else None


def overtaken(
    connection: BrokerConnection, topic: str, group: str, run: str, offsets: Mapping[int, int]
) -> dict[int, int]:
    """Return the partitions of which another run trains on samples that a checkpoint holds, and from which offset.

    Args:
        connection: How to reach the broker.
        topic: The topic.
        group: The consumer group.
        run: The run that has the checkpoint.
        offsets: The offsets of its checkpoint.

    Raises:
        TopicError: No broker answers.
    """
    if not offsets:
        return {}
    parts = [confluent_kafka().TopicPartition(topic, number) for number in offsets]
    what = f"The offsets of the group {group} were not found"
    with connection.consumer(what, group_id=group, enable_auto_commit=False) as consumer:
        committed = consumer.committed(parts, timeout=REQUEST_SECONDS)
    found = {part.partition: taken_over(owners_of(part.metadata), run) for part in committed}
    return {number: since for number, since in found.items() if since is not None and since < offsets[number]}


class OffsetCommitter:
    """Commits offsets of a run that reads a topic alone, for those who watch it, without ever making it wait.

    One request is under way at a time, and of those that wait only the newest is kept.

    Requests that are under way together may overtake each other. What cannot be committed is left out; nothing but a
    picture of the lag depends on it.

    Args:
        connection: How to reach the broker.
        topic: The topic.
        group: The consumer group, which has no other members.
    """

    def __init__(self, connection: BrokerConnection, topic: str, group: str) -> None:
        self._kafka, self._topic, self._group = confluent_kafka(), topic, group
        self._wanted: Mapping[int, int] | None = None
        self._is_under_way = False
        self._consumer = self._kafka.Consumer(
            connection.config(group_id=group, enable_auto_commit=False) | {"on_commit": self._on_commit}
        )

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Let offsets be committed as soon as may be."""
        self._wanted = dict(offsets)
        self._go_on(0.0)

    def close(self) -> None:
        """Wait a moment for the last commit, and leave the broker."""
        until = time.monotonic() + CLOSING_SECONDS
        while (self._is_under_way or self._wanted) and time.monotonic() < until:
            self._go_on(0.05)
        leave(self._consumer.close, self._group, CLOSING_SECONDS)

    def _go_on(self, seconds: float) -> None:
        with contextlib.suppress(self._kafka.KafkaException, TopicError):
            if self._is_under_way:
                self._consumer.poll(seconds)  # calls `_on_commit`
            if self._wanted and not self._is_under_way:
                places = [self._kafka.TopicPartition(self._topic, *place) for place in sorted(self._wanted.items())]
                self._wanted, self._is_under_way = None, True
                self._consumer.commit(offsets=places, asynchronous=True)

    def _on_commit(self, error: Any, places: Any) -> None:
        self._is_under_way = False


def leave(close: Callable[[], None], group: str, seconds: float) -> None:
    """Close a consumer, and wait so long for it: while the broker is away, librdkafka may never get an answer."""
    leaving = threading.Thread(target=close, name=f"leaving {group}", daemon=True)
    leaving.start()
    leaving.join(seconds)
