"""Sending samples to a topic, each exactly once, and counting what the brokers acknowledged."""

from __future__ import annotations

import contextlib
from typing import Any

from experiments_manager.kafka.connection import REQUEST_SECONDS, Connection, confluent_kafka
from experiments_manager.kafka.errors import TopicError
from experiments_manager.kafka.record_format import RecordFormat
from experiments_manager.kafka.structure import Structure
from experiments_manager.kafka.topics import Topics

QUEUE_BYTES = 256 * 2**20
"""Records that wait for the broker; `send` waits while there are more."""

_POLL_SECONDS = 0.1


class SampleProducer:
    """Sends samples of one structure to a topic.

    The topic is created if it is missing, and the structure is stored beside it. Records take turns through the
    partitions: the n-th record goes to partition n modulo their number.

    Args:
        connection: How to reach the broker.
        topic: Where the samples go.
        structure: What each of them looks like.
        partitions: Partitions of a topic that is created.
        samples_per_record: Samples that share a record.

    Attributes:
        sent: Records handed to librdkafka.
        failed: Records that it gave up.
    """

    def __init__(
        self,
        connection: Connection,
        topic: str,
        structure: Structure,
        *,
        partitions: int = 1,
        samples_per_record: int = 1,
    ) -> None:
        kafka = confluent_kafka()
        topics = Topics(connection)
        topics.create(topic, partitions)
        self._partitions = topics.partitions(topic)
        topics.store_structure(topic, structure)
        self._connection, self._topic = connection, topic
        self._format, self._samples_per_record = RecordFormat(structure), samples_per_record
        self.sent = self.failed = 0
        self._failure: Any = None
        self._producer = kafka.Producer(producer_config(connection) | {"on_delivery": self._reported})

    @property
    def acknowledged(self) -> int:
        """Records that the broker has stored; those that still wait are not counted."""
        return self.sent - len(self._producer) - self.failed

    def send(self, batch: Any) -> None:
        """Send a batch of samples; wait while too many are under way.

        Args:
            batch: A nest of arrays like the structure, the batch first.

        Raises:
            RecordError: The batch does not fit the structure.
            TopicError: A record was given up.
        """
        for record in self._format.encode(batch, self._samples_per_record):
            partition = self._partitions[self.sent % len(self._partitions)]
            while True:
                with contextlib.suppress(BufferError):
                    self._producer.produce(self._topic, record, partition=partition)
                    break
                self._producer.poll(_POLL_SECONDS)
            self.sent += 1
        self._producer.poll(0)
        self._require_delivery()

    def flush(self, seconds: float = REQUEST_SECONDS) -> None:
        """Wait until the broker has acknowledged everything.

        Args:
            seconds: How long nothing may be acknowledged.

        Raises:
            TopicError: A record was given up, or the broker does not answer.
        """
        waiting = len(self._producer)
        while waiting:
            left = self._producer.flush(seconds)
            self._require_delivery()
            if left >= waiting:
                raise self._connection.no_broker()
            waiting = left

    def _reported(self, error: Any, message: Any) -> None:
        if error is not None:
            self.failed += 1
            self._failure = self._failure or error

    def _require_delivery(self) -> None:
        if self._failure is not None:
            raise TopicError(
                f"{self.failed} of {self.sent} records did not reach topic {self._topic}: {self._failure.str()}. "
                "Produce them again."
            )


def producer_config(connection: Connection) -> dict[str, Any]:
    """Return librdkafka's configuration of a producer of samples."""
    return connection.config(
        enable_idempotence=True,
        compression_type="zstd",
        linger_ms=20,
        batch_size=2**20,
        message_max_bytes=64 * 2**20,
        queue_buffering_max_kbytes=QUEUE_BYTES // 1024,
        # A call into Python for each record that arrived would take longer than sending it.
        delivery_report_only_error=True,
    )
