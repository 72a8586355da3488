"""A member of a consumer group that commits what it read and what it wrote in one transaction.

The offsets that were read are sent into the producer's transaction together with the generation of the group in which
they were read, so the broker refuses both from a member that has lost its partitions without knowing it (KIP-447).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from experiments_manager.kafka.connection import REQUEST_SECONDS, BrokerConnection, confluent_kafka, is_transient
from experiments_manager.kafka.errors import TopicError
from experiments_manager.kafka.topics import Outgoing

logger = logging.getLogger(__name__)

SESSION_SECONDS = 10
"""How long the group waits for a member that gives no sign before its partitions go to others."""
TRANSACTION_SECONDS = 15
"""How long the brokers keep a transaction open whose member was killed: so long nobody reads beyond it."""

_CALL_SECONDS = 5.0
_PLACE_SECONDS = 7.0  # two heartbeats, by whose answers a member learns that another has its place


class CommitLostError(Exception):
    """A commit is in doubt; what it held is read again if it did not happen."""


class GroupMember:
    """A consumer of a group, and a transactional producer.

    Args:
        connection: How to reach the broker.
        topic: What to read.
        group: The consumer group.
        instance: Name of this member. One that starts under the name of another takes its place at once; without a name
            the group waits `SESSION_SECONDS` for one that was killed.
        on_change: Called when partitions come or go: what was read before and is not committed is read again, by
            whoever gets them.
    """

    def __init__(
        self, connection: BrokerConnection, topic: str, group: str, instance: str | None, on_change: Callable[[], None]
    ) -> None:
        self._connection, self._topic, self._group, self._instance = connection, topic, group, instance
        self._transactional_id = f"{group}.{instance or uuid.uuid4().hex}"
        self._on_change = on_change
        self._committing = threading.Lock()
        self._consumer: Any = None
        self._producer: Any = None
        self._metadata: Any = None
        self._is_waiting = self._was_fenced = False
        self._unread: set[int] | None = None
        self._next: dict[int, int] = {}

    @property
    def is_at_end(self) -> bool:
        """Whether the group has told which partitions this member reads, and all of them were read to their end."""
        return self._unread is not None and not self._unread

    def open(self, give_up: Callable[[], bool]) -> None:
        """End what a member of the same name has left open, and enter the group.

        Args:
            give_up: Asked from time to time while no broker answers.

        Raises:
            TopicError: The broker refuses.
        """
        kafka = confluent_kafka()
        self._was_fenced = False
        self._producer = kafka.Producer(self._producer_config())
        with self._connection.errors(f"The transactions of group {self._group} cannot begin"):
            _persist(lambda: self._producer.init_transactions(_CALL_SECONDS), give_up, self._require_welcome)
        self._consumer = kafka.Consumer(self._consumer_config())
        self._consumer.subscribe(
            [self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )

    def _producer_config(self) -> dict[str, Any]:
        config = self._connection.config(
            compression_type="zstd",
            linger_ms=5,
            message_max_bytes=64 * 2**20,
            queue_buffering_max_kbytes=2**20,
        )
        own = {"transactional.id": self._transactional_id, "transaction.timeout.ms": 1000 * TRANSACTION_SECONDS}
        return config | own | {"log_level": 0}  # what fails is told by `commit`

    def _consumer_config(self) -> dict[str, Any]:
        config = self._connection.config(auto_offset_reset="earliest", session_timeout_ms=1000 * SESSION_SECONDS)
        own = {"group.id": self._group, "enable.auto.commit": False, "isolation.level": "read_committed"}
        own |= {"enable.partition.eof": True}
        return config | own | ({"group.instance.id": self._instance} if self._instance else {})

    def poll(self, seconds: float) -> Any:
        """Return the next message, or `None` if none comes within that time.

        Raises:
            TopicError: The topic cannot be read.
        """
        message = self._consumer.poll(seconds)
        if message is None:
            return None
        error = message.error()
        if error is None or error.name() == "_PARTITION_EOF":
            self._tell_of_removed(message.partition(), message.offset(), message.offset() + (error is None))
        if error is None:
            self._is_waiting = False
            self._unread.add(message.partition())
            return message
        if error.name() == "_PARTITION_EOF":
            self._unread.discard(message.partition())
            return None
        if self._instance and error.name() in ("FENCED_INSTANCE_ID", "_FATAL") and "fenced" in error.str():
            raise self._replaced()
        if not error.fatal() and is_transient(error):
            if not self._is_waiting:
                logger.warning("Topic %s: %s. Waiting for the broker.", self._topic, error.str())
            self._is_waiting = True
            return None
        raise TopicError(f"Topic {self._topic} cannot be read by group {self._group}: {error.str()}.")

    def commit(self, offsets: Mapping[int, int], outgoing: Iterable[Outgoing]) -> None:
        """Write records, and that everything before these offsets is done: both or neither.

        Args:
            offsets: The next offset of each partition.
            outgoing: What to write.

        Raises:
            CommitLostError: It is unknown whether it was committed; after `close` and `open` the group knows.
            TopicError: It can never be committed.
        """
        kafka = confluent_kafka()
        places = [kafka.TopicPartition(self._topic, number, offset) for number, offset in offsets.items()]
        try:
            self._producer.begin_transaction()
            for one in outgoing:
                one.hand_to(self._producer)
            # Each is tried once, even if it could be tried again: librdkafka 2.16 may then wait for ever for a broker
            # that was away. A new producer of the same name finds out how this transaction ended.
            self._producer.send_offsets_to_transaction(places, self._metadata, _CALL_SECONDS)
            self._producer.commit_transaction(_CALL_SECONDS)
        except kafka.KafkaException as error:
            cause = error.args[0]
            self._was_fenced = cause.name() == "_FENCED"
            if cause.code() == kafka.KafkaError.MSG_SIZE_TOO_LARGE:
                raise TopicError(
                    f"An answer is larger than Kafka takes: {cause.str()}. Raise message.max.bytes of the broker, max."
                    "message.bytes of the topic and message.max.bytes in kafka_options."
                ) from error
            raise CommitLostError(cause.str()) from error

    def require_place(self) -> None:
        """Look whether another client has taken the place of this one, if the last commit makes that likely.

        Its transaction may also have been ended because a broker was away for long; only the group knows.

        Raises:
            TopicError: One has.
        """
        deadline = time.monotonic() + _PLACE_SECONDS
        while self._was_fenced and self._instance and time.monotonic() < deadline:
            self.poll(0.1)

    def holding(self) -> threading.Lock:
        """Return the lock under which to commit: partitions neither come nor go meanwhile."""
        return self._committing

    def answers(self) -> bool:
        """Return whether a broker answers."""
        with contextlib.suppress(confluent_kafka().KafkaException):
            self._consumer.list_topics(self._topic, timeout=_CALL_SECONDS)
            return True
        return False

    def close(self) -> None:
        """Leave the group; what is written and not committed is discarded, at the latest by the next `open`."""
        if self._consumer is not None:
            self._consumer.close()
        if self._producer is not None:
            self._producer.purge()
        self._consumer = self._producer = self._metadata = self._unread = None

    def _require_welcome(self) -> None:
        if refused := self._connection.refusal():
            raise refused

    def _assigned(self, consumer: Any, partitions: Any) -> None:
        with self._committing:
            self._on_change()
            # Not later: then it could be that of a generation in which others have what was read in this one.
            self._metadata = consumer.consumer_group_metadata()
            self._unread = {place.partition for place in partitions}
            self._next = self._committed(consumer, partitions)

    def _revoked(self, consumer: Any, partitions: Any) -> None:
        with self._committing:  # a commit that has begun ends first, in the generation that it belongs to
            self._on_change()

    def _committed(self, consumer: Any, partitions: Any) -> dict[int, int]:
        """Return where the group goes on, as far as a broker says; it is only for telling what is missing there."""
        with contextlib.suppress(confluent_kafka().KafkaException):
            places = consumer.committed(partitions, timeout=_CALL_SECONDS)
            return {place.partition: place.offset for place in places if place.offset >= 0}
        return {}

    def _tell_of_removed(self, number: int, offset: int, after: int) -> None:
        """Say how many records retention removed before they were answered, where some are missing."""
        expected = self._next.get(number, offset)
        self._next[number] = after
        if offset - expected <= 1:  # the mark of a transaction
            return
        part = confluent_kafka().TopicPartition(self._topic, number)
        with contextlib.suppress(confluent_kafka().KafkaException):
            first, _ = self._consumer.get_watermark_offsets(part, timeout=_CALL_SECONDS)
            if first > expected:
                logger.warning(
                    "Topic %s, partition %d: %d records (offsets %d to %d) have no answer: retention removed them.",
                    *(self._topic, number, first - expected, expected, first - 1),
                )

    def _replaced(self) -> TopicError:
        return TopicError(
            f"Another client took the place of {self._instance!r} in group {self._group} and goes on. Expected one "
            "client of that name. Give each client of a group an --instance of its own."
        )


def _persist(call: Callable[[], Any], give_up: Callable[[], bool], on_wait: Callable[[], None] | None = None) -> None:
    """Call until it succeeds, or fails for a reason that does not pass; `on_wait` may raise before the first wait."""
    kafka, warned, began = confluent_kafka(), False, time.monotonic()
    while True:
        try:
            call()
            return
        except kafka.KafkaException as error:
            cause = error.args[0]
            passes = is_transient(cause) and (cause.retriable() or not cause.txn_requires_abort())
            if not passes or cause.fatal() or (give_up() and time.monotonic() - began > REQUEST_SECONDS):
                raise
            if not warned and on_wait:
                on_wait()
            if not warned:
                logger.warning("Kafka does not answer (%s). Trying until it does.", cause.str())
            warned = True
            time.sleep(0.1)
