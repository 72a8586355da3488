"""Answering the records of a topic, each of them once.

Three threads share the work: one takes records, one settles them (says what is to be written for each), and one, which
is the session's own, commits what is settled: answers and offsets in one transaction. Batches are committed in the
order in which they were taken. Where partitions move to another client, or a transaction is lost, all batches that are
not committed are void, and their records are read again by whoever has the partition then.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

from experiments_manager.kafka.answering.group_member import CommitLostError, GroupMember
from experiments_manager.kafka.connection import BrokerConnection
from experiments_manager.kafka.errors import TopicError
from experiments_manager.kafka.topics import Outgoing

COMMIT_RECORDS = 500
COMMIT_SECONDS = 0.1
"""A transaction begins when so many records are settled, after this time, or when nothing else is under way."""
BYTES_AT_ONCE = 2**21
MOST_UNCOMMITTED = 20 * COMMIT_RECORDS
_POLL_SECONDS = 0.1
_MOST_LOST = 5


@dataclasses.dataclass(eq=False)
class MessageBatch:
    """Records that are settled together.

    Attributes:
        generation: In which of the session's generations they were read.
        messages: The messages of confluent-kafka.
        results: What to write for them; `None` while that is not known.
    """

    generation: int
    messages: Sequence[Any]
    results: Sequence[Outgoing] | None = None

    def only(self, messages: Sequence[Any]) -> MessageBatch:
        """Return a batch of some of the messages."""
        return MessageBatch(self.generation, messages)


class AnsweringSession:
    """The records of a topic, and the obligation to settle each.

    Args:
        connection: How to reach the broker.
        topic: Whose records are to be answered.
        group: The consumer group; its members share the partitions.
        instance: Name of this member; see `GroupMember`.

    Attributes:
        committed: How many records are settled and committed.
        written: How many records were written to each topic.
    """

    def __init__(self, connection: BrokerConnection, topic: str, group: str, instance: str | None = None) -> None:
        self._member = GroupMember(connection, topic, group, instance, self._void)
        self.topic, self.committed = topic, 0
        self.written: collections.Counter[str] = collections.Counter()
        self._lost = 0
        self._changed = threading.Condition()
        self._taking = threading.Lock()
        self._batches: collections.deque[MessageBatch] = collections.deque()
        self._generation = 0
        self._must_open, self._closing = True, False
        self._failure: BaseException | None = None
        self._committer = threading.Thread(target=self._commit_all, name="kafka commits", daemon=True)

    def take(self, most: int) -> MessageBatch | None:
        """Return the next records, or `None` if none come within a moment. One thread may call this.

        Args:
            most: How many records at most; with 0 it only waits for that moment.

        Raises:
            TopicError: The topic cannot be read, or its answers cannot be written.
        """
        with self._taking:
            self._raise_failure()
            if self._closing:
                return None
            if self._must_open:
                self._open()
            generation, messages, size = self._generation, [], 0
            if most <= 0:
                time.sleep(_POLL_SECONDS)
            while len(messages) < most and size < BYTES_AT_ONCE:
                message = self._member.poll(0.0 if messages else _POLL_SECONDS)
                if self._generation != generation:  # what came before that belongs to nobody any more
                    generation, messages, size = self._generation, [], 0
                if message is None:
                    break
                messages.append(message)
                size += len(message.value() or b"")
            if self._must_open:  # what this consumer gave last comes again
                return None
            return MessageBatch(generation, messages) if messages else None

    def register(self, batch: MessageBatch) -> None:
        """Note that a batch will be settled, in the order of taking; wait while too much is not committed."""
        with self._changed:
            self._changed.wait_for(lambda: self.outstanding < MOST_UNCOMMITTED or not self._goes_on(batch))
            if self._goes_on(batch):
                self._batches.append(batch)

    def settle(self, batch: MessageBatch, results: Sequence[Outgoing] = ()) -> bool:
        """Say what is to be written for a batch.

        Returns:
            Whether it counts: not if it is void, and its records are answered again.

        Raises:
            TopicError: Answers cannot be written.
        """
        self._raise_failure()
        with self._changed:
            batch.results = results
            self._changed.notify_all()
            return batch.generation == self._generation

    def split(self, batch: MessageBatch) -> list[MessageBatch]:
        """Replace a registered batch by one for each of its records, and return these."""
        parts = [batch.only([message]) for message in batch.messages]
        with self._changed:
            if batch in self._batches:
                place = self._batches.index(batch)
                self._batches.remove(batch)
                for number, part in enumerate(parts):
                    self._batches.insert(place + number, part)
        return parts

    @property
    def outstanding(self) -> int:
        """How many records are registered and not committed."""
        with self._changed:
            return _records(self._batches)

    @property
    def count(self) -> int:
        """How many records are registered or committed."""
        with self._changed:
            return self.committed + self.outstanding

    @property
    def is_at_end(self) -> bool:
        """Whether it is known which partitions are read here, and they have no further record."""
        return self._member.is_at_end

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is to be taken."""
        return self._closing

    def is_idle(self) -> bool:
        """Return whether everything there is was read and committed, and a broker answers."""
        with self._taking:
            self._raise_failure()
            if self._closing:
                return True
            return self.is_at_end and not self._must_open and not self.outstanding and self._member.answers()

    def close(self) -> None:
        """Commit what is settled, and leave the group.

        Raises:
            TopicError: It cannot be committed; it will be answered again.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._committer.ident is not None:
            self._committer.join()
        with self._taking:
            self._member.close()
        self._raise_failure()

    def _open(self) -> None:
        """Enter the group, again if a commit was lost."""
        self._member.require_place()
        self._member.close()
        self._void()
        self._must_open = False
        self._member.open(lambda: self._closing)
        if self._committer.ident is None:
            self._committer.start()

    def _goes_on(self, batch: MessageBatch) -> bool:
        return batch.generation == self._generation and self._failure is None and not self._closing

    def _void(self) -> None:
        with self._changed:
            self._generation += 1
            self._batches.clear()
            self._changed.notify_all()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _settled(self) -> list[MessageBatch]:
        """Return the batches at the beginning that are settled."""
        with self._changed:
            return list(itertools.takewhile(lambda batch: batch.results is not None, self._batches))

    def _is_due(self) -> bool:
        settled = self._settled()
        return self._closing or len(settled) == len(self._batches) or _records(settled) >= COMMIT_RECORDS

    def _commit_all(self) -> None:
        """In the session's thread: commit what is settled until the session is closed."""
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._closing or self._settled())
                    self._changed.wait_for(self._is_due, COMMIT_SECONDS)
                with self._member.holding():
                    batches = self._settled()
                    if batches:
                        self._commit(batches)
                if self._closing:
                    return
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _commit(self, batches: Sequence[MessageBatch]) -> None:
        offsets = {message.partition(): message.offset() + 1 for batch in batches for message in batch.messages}
        outgoing = [one for batch in batches for one in batch.results or ()]
        try:
            self._member.commit(offsets, outgoing)
        except CommitLostError as error:
            self._lost += 1
            if self._closing or self._lost >= _MOST_LOST:
                raise TopicError(
                    f"The last answers to topic {self.topic} could not be written: {error}. Start again: those "
                    "that were not written then are."
                ) from error
            self._must_open = True
            self._void()
            return
        with self._changed:
            self._lost = 0
            self.committed += _records(batches)
            self.written.update(one.topic for one in outgoing)
            for _ in batches:
                self._batches.popleft()
            self._changed.notify_all()


def _records(batches: Iterable[MessageBatch]) -> int:
    return sum(len(batch.messages) for batch in batches)
