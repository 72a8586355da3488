"""Requests made of a topic's records, as they come."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from experiments_manager.client.errors import ClientError
from experiments_manager.client.inputs.samples import Sample
from experiments_manager.client.inputs.topic_records import TopicRecords
from experiments_manager.kafka.answering.group_member import Outgoing
from experiments_manager.kafka.answering.session import AnsweringSession, MessageBatch
from experiments_manager.kafka.errors import RecordError
from experiments_manager.kafka.reading.dead_letters import BadShare
from experiments_manager.kafka.records.topic_format import structure_id

DeadLetter = Callable[[Any, Exception], Outgoing]


class TopicRequest(Sample):
    """A request made of some records.

    Attributes:
        batch: The records.
        counts: How many samples each of them holds.
        answers: How many answers are expected: one a record.
    """

    def __init__(self, inputs: Mapping[str, Any], batch: MessageBatch, counts: np.ndarray) -> None:
        first = batch.messages[0]
        super().__init__(f"{first.partition()}:{first.offset()}", inputs)
        self.batch, self.counts = batch, counts
        self.answers = len(batch.messages)
        self._stops = counts.cumsum().tolist()

    def part(self, arrays: Mapping[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
        """Return the samples of one record among those of all."""
        stop = self._stops[index]
        return {name: array[stop - int(self.counts[index]) : stop] for name, array in arrays.items()}

    def alone(self, batch: MessageBatch) -> TopicRequest:
        """Return the request of a batch of one of the records."""
        index = self.batch.messages.index(batch.messages[0])
        return TopicRequest(self.part(self, index), batch, self.counts[index : index + 1])


def read_topic(
    session: AnsweringSession,
    records: TopicRecords,
    dead_letter: DeadLetter,
    *,
    batch_size: int,
    most: int | None = None,
    idle_timeout: float | None = None,
    max_bad: float | None = None,
) -> Iterator[TopicRequest]:
    """Yield requests made of a topic's records; their batches are to be settled in the session.

    Args:
        session: Gives the records.
        records: Decodes them.
        dead_letter: Makes what is written for one that cannot be used.
        batch_size: Records in a request at most.
        most: How many records to take at most.
        idle_timeout: End when no record came for so many seconds; `None`: never.
        max_bad: Share of records that cannot be decoded above which it ends; `None`: never.

    Raises:
        TopicError: The topic cannot be read, too many of its records cannot be decoded, or answers cannot be written.
    """
    quiet_since, share = time.monotonic(), BadShare(session.topic, max_bad, remedy="raise the share by --max-bad")
    while not session.is_closed:
        left = batch_size if most is None else min(batch_size, most - session.count)
        batch = session.take(left)
        if batch is not None:
            for _, messages in itertools.groupby(batch.messages, lambda message: structure_id(message.value())):
                yield from _requests(session, records, batch.only(list(messages)), dead_letter, share)
            quiet_since = time.monotonic()
        elif most is not None and session.committed >= most:
            return
        elif not session.is_at_end:
            quiet_since = time.monotonic()
        elif idle_timeout is not None and time.monotonic() - quiet_since >= idle_timeout and session.is_idle():
            return


def _requests(
    session: AnsweringSession, records: TopicRecords, batch: MessageBatch, dead_letter: DeadLetter, share: BadShare
) -> Iterator[TopicRequest]:
    """Yield the request of a batch; where a record spoils it, one for each of the others."""
    try:
        inputs, counts = records.decode(batch.messages)
    except (RecordError, ClientError) as error:
        if len(batch.messages) > 1:
            for message in batch.messages:
                yield from _requests(session, records, batch.only([message]), dead_letter, share)
            return
        session.register(batch)
        session.settle(batch, [dead_letter(batch.messages[0], error)])
        share.count(1, bad=1)
        share.require_few(batch.messages[0].partition(), batch.messages[0].offset(), error)
        return
    share.count(len(batch.messages))
    session.register(batch)
    yield TopicRequest(inputs, batch, counts)
