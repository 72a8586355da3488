"""Sending samples to a topic, each exactly once, and counting what the brokers acknowledged."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from experiments_manager.kafka.connection import REQUEST_SECONDS, BrokerConnection, confluent_kafka
from experiments_manager.kafka.errors import TopicError
from experiments_manager.kafka.producing.producer_run import ProducerRun, find_producer_run
from experiments_manager.kafka.records.record_format import RecordFormat, structure_id
from experiments_manager.kafka.records.structure import Structure
from experiments_manager.kafka.topics import Topics

QUEUE_BYTES = 256 * 2**20
"""Records that wait for the broker; `send` waits while there are more."""

MESSAGE_BYTES = 64 * 2**20
"""Largest record, and the most that a topic made here takes at once; Kafka's own limit is one megabyte."""

_POLL_SECONDS = 0.1


class SampleProducer:
    """Sends samples of one structure to a topic.

    The topic is created if it is missing, and the structure is stored beside it. Records take turns through the
    partitions: the n-th record goes to partition n modulo their number. Their keys say who sent them and which number
    they have (`producer_run.py`), so that a producer that was killed can go on where the acknowledgements ended.

    Args:
        connection: How to reach the broker.
        topic: Where the samples go.
        structure: What each of them looks like.
        partitions: Partitions of a topic that is created.
        samples_per_record: Samples that share a record.
        name: The producer's, in the keys of its records; one of its own for each that is to be resumed.
        resume: Whether to leave out what a producer of that name has sent already. The same batches must be sent
            again, from the first one on or from `run.first_needed` (see `skip_records`).
        on_wait: Called about ten times a second while `send` or `flush` wait for the broker, with the seconds since
            it last acknowledged something; what it raises ends the waiting.

    Attributes:
        run: What identifies its records, and what of them had arrived before.
        sent: Records handed to librdkafka.
        sent_bytes: Bytes of these records.
        failed: Records that it gave up.
        skipped: Records that had arrived before.
    """

    def __init__(
        self,
        connection: BrokerConnection,
        topic: str,
        structure: Structure,
        *,
        partitions: int = 1,
        samples_per_record: int = 1,
        name: str = "0",
        resume: bool = False,
        on_wait: Callable[[float], None] | None = None,
    ) -> None:
        kafka = confluent_kafka()
        topics = Topics(connection)
        topics.names()  # refuses an address at which nobody answers
        # It asks the broker for its number while the topics are made, which takes half a second.
        self._producer = kafka.Producer(producer_config(connection) | {"on_delivery": self._reported})
        found = None
        if resume and topic in topics.names():
            self._partitions = topics.partitions(topic)
            found = find_producer_run(connection, topic, name)
        if found is not None:
            self._require_same(found, structure, samples_per_record)
        topics.store_structure(topic, structure)  # first, so that whoever finds the topic finds it too
        topics.create(topic, partitions, max_message_bytes=str(MESSAGE_BYTES))
        self._partitions = topics.partitions(topic)
        self.run = found or ProducerRun.new(name, len(self._partitions), samples_per_record)
        self._connection, self._topic, self._on_wait = connection, topic, on_wait
        self._format, self._samples_per_record = RecordFormat(structure), samples_per_record
        self._number = self.sent = self.sent_bytes = self.failed = self.skipped = 0
        self._failure: Any = None
        self._acknowledged_at, self._acknowledged_then = time.monotonic(), 0

    @property
    def partitions(self) -> int:
        """How many partitions the records take turns through."""
        return self.run.partitions

    @property
    def acknowledged(self) -> int:
        """Records that the broker has stored; those that still wait are not counted."""
        return self.sent - len(self._producer) - self.failed

    def skip_records(self, count: int) -> None:
        """Go on as if so many records, all of which arrived before, had been sent and left out."""
        self._number += count
        self.skipped += count

    def send(self, batch: Any) -> int:
        """Send a batch of samples; wait while too many are under way.

        Args:
            batch: A nest of arrays like the structure, the batch first.

        Returns:
            How many of its records were sent now: those that had arrived before are not sent again.

        Raises:
            RecordError: The batch does not fit the structure.
            TopicError: A record was given up, or the data are not those that were sent before.
        """
        before, prefix, run = self.sent, self.run.prefix, self.run
        resuming = self._number <= max((number for number, _ in run.last.values()), default=-1)
        for record in self._format.encode(batch, self._samples_per_record):
            number = self._number
            if resuming and run.has(number):
                run.require_same(number, record)
                self.skipped += 1
            else:
                self._hand_over(record, f"{prefix}{number}", self._partitions[number % run.partitions])
            self._number += 1
        self._producer.poll(0)
        self._require_delivery()
        return self.sent - before

    def poll(self, seconds: float = 0) -> None:
        """Let librdkafka report for so long.

        Raises:
            TopicError: A record was given up.
        """
        self._producer.poll(seconds)
        self._waited()
        self._require_delivery()

    def flush(self, seconds: float | None = REQUEST_SECONDS) -> None:
        """Wait until the broker has acknowledged everything.

        Args:
            seconds: How long nothing may be acknowledged; `None`: for ever.

        Raises:
            TopicError: A record was given up, or the broker does not answer.
        """
        self._acknowledged_at = time.monotonic()
        waiting = True
        while waiting:
            waiting = self._producer.flush(_POLL_SECONDS) > 0
            self._require_delivery()
            if self._waited() >= (float("inf") if seconds is None else seconds):
                raise self._connection.no_broker()

    def _hand_over(self, record: bytes, key: str, partition: int) -> None:
        while True:
            try:
                self._producer.produce(self._topic, record, key, partition)
                break
            except BufferError:
                self.poll(_POLL_SECONDS)
            except confluent_kafka().KafkaException as error:
                raise self._given_up(error.args[0]) from error
        self.sent += 1
        self.sent_bytes += len(record)

    def _waited(self) -> float:
        """Tell whoever wants to know how long nothing was acknowledged."""
        acknowledged, now = self.acknowledged, time.monotonic()
        if acknowledged != self._acknowledged_then or not len(self._producer):
            self._acknowledged_at, self._acknowledged_then = now, acknowledged
        silent = now - self._acknowledged_at
        if self._on_wait is not None:
            self._on_wait(silent)
        return silent

    def _reported(self, error: Any, message: Any) -> None:
        if error is not None:
            self.failed += 1
            self._failure = self._failure or error

    def _require_delivery(self) -> None:
        if self._failure is not None:
            raise self._given_up(self._failure)

    def _given_up(self, error: Any) -> TopicError:
        return TopicError(
            f"{max(self.failed, 1)} of {max(self.sent, 1)} records did not reach topic {self._topic}: {error.str()}. "
            "Remove the cause, then send what is missing: the same command with --resume."
        )

    def _require_same(self, run: ProducerRun, structure: Structure, samples_per_record: int) -> None:
        """Refuse to go on with other records, before anything is stored."""
        for number, value in run.last.values():
            if structure_id(value) != structure.id.to_bytes(4, "little"):
                raise run.differs(number)
        if run.samples_per_record != samples_per_record:
            raise TopicError(
                f"Producer {run.name} sent records of {run.samples_per_record} samples before. Expected the same to "
                f"resume it, got {samples_per_record}. Give --samples-per-record {run.samples_per_record}."
            )
        if run.partitions > len(self._partitions):
            raise TopicError(
                f"Producer {run.name} sent records to {run.partitions} partitions before. Expected them to be there to "
                f"resume it, got {len(self._partitions)}: the topic was made again. Produce without --resume."
            )


def producer_config(connection: BrokerConnection) -> dict[str, Any]:
    """Return librdkafka's configuration of a producer of samples."""
    return connection.config(
        enable_idempotence=True,
        acks="all",
        compression_type="zstd",
        linger_ms=20,
        batch_size=2**20,
        message_max_bytes=MESSAGE_BYTES,
        queue_buffering_max_kbytes=QUEUE_BYTES // 1024,
        # A broker that is away for long costs time and no sample: whoever sends says that it waits, and can be stopped.
        message_timeout_ms=0,
        # A call into Python for each record that arrived would take longer than sending it.
        delivery_report_only_error=True,
    )
