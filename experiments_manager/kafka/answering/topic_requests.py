"""Requests made of a topic's records as they come, whatever is asked; those that cannot be used get dead letters."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from experiments_manager.kafka.answering.session import AnsweringSession, MessageBatch
from experiments_manager.kafka.dead_letters import BadShare, DeadLetters
from experiments_manager.kafka.errors import RecordError
from experiments_manager.kafka.records.record_format import structure_id

logger = logging.getLogger(__name__)

Request = TypeVar("Request")


class TopicRequests(Generic[Request]):
    """Makes requests of a topic's records; their batches are to be settled in the session.

    Args:
        session: Gives the records.
        make_request: Makes a request of records of one structure; raises `RecordError` where it cannot.
        dead_letters: Says what is written for records that cannot be used.
        max_bad: Share of records that cannot be decoded above which it ends; `None`: never.
    """

    def __init__(
        self,
        session: AnsweringSession,
        make_request: Callable[[MessageBatch], Request],
        dead_letters: DeadLetters,
        max_bad: float | None = None,
    ) -> None:
        self._session, self._make_request, self._dead_letters = session, make_request, dead_letters
        self._share = BadShare(session.topic, max_bad, remedy="raise the share by --max-bad")
        self._has_refused = False

    def read(self, batch_size: int, most: int | None = None, idle_timeout: float | None = None) -> Iterator[Request]:
        """Yield requests until there are no more.

        Args:
            batch_size: Records in a request at most.
            most: How many records to take at most.
            idle_timeout: End when no record came for so many seconds; `None`: never.

        Raises:
            TopicError: The topic cannot be read, too many of its records cannot be decoded, or answers cannot be
                written.
        """
        session, quiet_since = self._session, time.monotonic()
        while not session.is_closed:
            left = batch_size if most is None else min(batch_size, most - session.count)
            batch = session.take(left)
            if batch is not None:
                for _, messages in itertools.groupby(batch.messages, lambda message: structure_id(message.value())):
                    yield from self._requests(batch.only(list(messages)))
                quiet_since = time.monotonic()
            elif most is not None and session.committed >= most:
                return
            elif not session.is_at_end:
                quiet_since = time.monotonic()
            elif idle_timeout is not None and time.monotonic() - quiet_since >= idle_timeout and session.is_idle():
                return

    def refuse(self, batch: MessageBatch, reason: object) -> None:
        """Settle a batch of one record by a dead letter.

        Raises:
            TopicError: It cannot be written.
        """
        [message] = batch.messages
        place = message.partition(), message.offset()
        if not self._has_refused:
            self._has_refused = True
            logger.warning(
                "Record %d of partition %d has no answer and goes to topic %s: %s",
                *(message.offset(), message.partition(), self._dead_letters.topic, reason),
            )
        letter = self._dead_letters.letter(*place, message.value(), reason, message.key())
        self._session.settle(batch, [letter])

    def _requests(self, batch: MessageBatch) -> Iterator[Request]:
        """Yield the request of a batch; where a record spoils it, one for each of the others."""
        try:
            request = self._make_request(batch)
        except RecordError as error:
            if len(batch.messages) > 1:
                for message in batch.messages:
                    yield from self._requests(batch.only([message]))
                return
            self._session.register(batch)
            self.refuse(batch, error)
            self._share.count(1, bad=1)
            self._share.require_few(batch.messages[0].partition(), batch.messages[0].offset(), error)
            return
        self._share.count(len(batch.messages))
        self._session.register(batch)
        yield request
