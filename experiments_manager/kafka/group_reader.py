"""Reading a topic together with others: each partition by one member of a consumer group, its offset handed on exactly.

A member that has to give partitions away trains no further until a checkpoint is whole that holds what it had trained
on; then it commits the offsets, and the next owner goes on there. What a member commits names the run and the offset at
which it took the partition over. So a run that was killed sees, when it comes back, whether another one went on from
before its own checkpoint, and does not count those samples itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from experiments_manager.kafka.connection import REQUEST_SECONDS, Connection, confluent_kafka
from experiments_manager.kafka.errors import PartitionsLostError
from experiments_manager.kafka.reader import TopicReader
from experiments_manager.kafka.rotation import Position, Rotation

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
        connection: Connection,
        topic: str,
        group: str,
        run: str,
        start: Mapping[int, int],
        own: Mapping[int, int],
        patience: float | None,
        release: Callable[[], Position | None],
    ) -> None:
        self._group, self._run, self._start, self._own = group, run, dict(start), dict(own)
        self._release, self._since = release, {}
        self._lost: list[int] = []
        super().__init__(
            connection,
            topic,
            Position({}),
            None,
            patience,
            group_id=group,
            partition_assignment_strategy="cooperative-sticky",
            group_instance_id=run,  # a run that comes back at once keeps its partitions
            session_timeout_ms=10_000,
            max_poll_interval_ms=_MOST_SECONDS_OF_A_STEP * 1000,
        )

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
        if self._lost:
            raise PartitionsLostError(
                f"Partitions {', '.join(map(str, self._lost))} of topic {self._topic} were given to other members of "
                f"the group {self._group}, since this one did not answer for too long."
            )
        if not self._rotation.partitions:
            self.trouble = f"the group {self._group} assigns no partition of topic {self._topic} to this run at present"
        elif self.trouble and "assigns no partition" in self.trouble:
            self.trouble = None
        return records

    def commit(self, offsets: Mapping[int, int], *, wait: bool = False) -> None:
        """Commit the offsets of a whole checkpoint, of those partitions that are still this member's."""
        owned = {number: offset for number, offset in offsets.items() if number in self._since}
        if owned:
            self._consumer.commit(offsets=self._places(owned), asynchronous=not wait)

    def _places(self, offsets: Mapping[int, int]) -> list[Any]:
        return [
            self._kafka.TopicPartition(self._topic, number, offset, metadata=f"{self._run} from {self._since[number]}")
            for number, offset in sorted(offsets.items())
        ]

    def _take_up_new_partitions(self) -> None:
        """The group does that."""

    def _on_assign(self, consumer: Any, parts: list[Any]) -> None:
        """Begin to read partitions where the group, or this run's own checkpoint, has come to, and say so."""
        with self._connection.errors(f"The offsets of the group {self._group} were not found"):
            committed = consumer.committed(parts, timeout=REQUEST_SECONDS)
        begin = {}
        for part in committed:
            run, since = claim(part.metadata)
            begin[part.partition] = part.offset if part.offset >= 0 else self._start.get(part.partition, 0)
            is_own = run == self._run or part.offset < 0
            if is_own:
                begin[part.partition] = max(begin[part.partition], self._own.get(part.partition, 0))
            self._since[part.partition] = since if run == self._run else begin[part.partition]
        for number, offset in begin.items():
            self._rotation.join(number, offset)
        consumer.incremental_assign([self._kafka.TopicPartition(self._topic, *place) for place in begin.items()])
        if begin:
            consumer.commit(offsets=self._places(begin), asynchronous=False)

    def _on_revoke(self, consumer: Any, parts: list[Any]) -> None:
        """Give partitions away once a checkpoint holds what was trained on of them."""
        place = self._release()
        if place is None:  # reading ends
            return
        revoked = [part.partition for part in parts]
        self.commit(place.offsets, wait=True)
        kept = {number: place.offsets[number] for number in self._rotation.partitions if number not in revoked}
        self._own = {**self._own, **place.offsets}
        for number in revoked:
            self._since.pop(number, None)
        # What was read ahead is forgotten, so the partitions that stay are read again from the checkpoint on.
        self._rotation = Rotation(Position(kept, place.turn), self._patience)
        self._paused = set()
        for number, offset in kept.items():
            consumer.seek(self._kafka.TopicPartition(self._topic, number, offset))

    def _on_lost(self, consumer: Any, parts: list[Any]) -> None:
        self._lost += [part.partition for part in parts]


def claim(metadata: str | None) -> tuple[str | None, int]:
    """Return the run that committed an offset, and the offset at which it took the partition over."""
    run, found, since = (metadata or "").rpartition(" from ")
    return (run, int(since)) if found and since.isdigit() else (None, 0)


def overtaken(connection: Connection, topic: str, group: str, run: str, offsets: Mapping[int, int]) -> dict[int, int]:
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
    kafka = confluent_kafka()
    consumer = kafka.Consumer(connection.config(group_id=group, enable_auto_commit=False))
    try:
        with connection.errors(f"The offsets of the group {group} were not found"):
            parts = [kafka.TopicPartition(topic, number) for number in offsets]
            committed = consumer.committed(parts, timeout=REQUEST_SECONDS)
    finally:
        consumer.close()
    found = {}
    for part in committed:
        other, since = claim(part.metadata)
        if part.offset >= 0 and other not in (None, run) and since < offsets[part.partition]:
            found[part.partition] = since
    return found
