"""Sending a split to a topic: epoch after epoch, in records of a given size, at a given pace, until told to stop."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np

from experiments_manager.kafka.connection import REQUEST_SECONDS, BrokerConnection
from experiments_manager.kafka.errors import RecordError, TopicError
from experiments_manager.kafka.producing.producer import SampleProducer
from experiments_manager.kafka.records.composite import Ragged, Sparse, concatenated
from experiments_manager.kafka.records.structure import Structure


def sample_count(structure: Structure, batch: Any) -> int:
    """Return how many samples a batch has."""
    return len(structure.flatten(batch)[0])


def sample_slice(structure: Structure, batch: Any, start: int, stop: int) -> Any:
    """Return some samples of a batch."""
    return structure.pack([leaf[start:stop] for leaf in structure.flatten(batch)])


def regrouped(structure: Structure, batches: Iterable[Any], multiple: int) -> Iterator[Any]:
    """Yield the same samples in batches whose size is a multiple of a number; the last may have fewer.

    Args:
        structure: What the samples look like.
        batches: Nests of arrays. Where a dimension is open, they may differ in it.
        multiple: Samples in a record.
    """
    if multiple == 1:
        yield from batches
        return
    waiting: list[list[Any]] = []
    count = 0
    for batch in batches:
        waiting.append(structure.flatten(batch))
        count += len(waiting[-1][0])
        if count < multiple:
            continue
        leaves = _joined(waiting)
        whole = count - count % multiple
        yield structure.pack([leaf[:whole] for leaf in leaves])
        waiting, count = [[leaf[whole:] for leaf in leaves]] if count > whole else [], count - whole
    if count:
        yield structure.pack(_joined(waiting))


def _joined(parts: list[list[Any]]) -> list[Any]:
    return [concatenated([_as_array(piece) for piece in pieces]) for pieces in zip(*parts, strict=True)]


def _as_array(leaf: Any) -> Any:
    return leaf if isinstance(leaf, Ragged | Sparse) else np.asarray(leaf)


SILENT_SECONDS = 5.0
"""How long a broker may acknowledge nothing before it is said."""

_PACED_SECONDS = 0.01
_LONGEST_SLEEP = 0.1


class ProductionSource(Protocol):
    """Where samples come from.

    Attributes:
        structure: What each of them looks like.
        samples: How many an epoch has, where every epoch has as many; else `None`.
    """

    structure: Structure
    samples: int | None

    def epoch(self, number: int) -> Iterator[Any]:
        """Yield the batches of an epoch, counted from 0."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be sent, and how.

    Attributes:
        topic: Where to.
        epochs: How often; `None`: until stopped.
        partitions: Partitions of a topic that is created.
        samples_per_record: Samples that share a record.
        rate: Samples a second, `None`: as fast as they come.
        producer: Name of the producer in the keys of the records.
        resume: Whether to go on where a producer of that name ended.
    """

    topic: str
    epochs: int | None = 1
    partitions: int = 1
    samples_per_record: int = 1
    rate: float | None = None
    producer: str = "0"
    resume: bool = False


@dataclasses.dataclass(frozen=True)
class ProductionProgress:
    """How far a sending is.

    Attributes:
        topic: Where to.
        partitions: How many its records take turns through.
        epoch: The epoch that is being sent, from 1 on.
        samples: Samples sent by this process.
        records: Records that the broker acknowledged.
        waiting: Records that it did not acknowledge yet.
        already_there: Records that a producer of the same name had sent before.
        bytes: Bytes of the records sent, before compression.
        seconds: Since the first of them.
    """

    topic: str
    partitions: int
    epoch: int
    samples: int
    records: int
    waiting: int
    already_there: int
    bytes: int
    seconds: float

    @property
    def rate(self) -> float:
        """Samples sent per second so far."""
        return self.samples / self.seconds if self.seconds > 0 else 0.0


class Stopped(Exception):  # noqa: N818  (it is no error)
    """The sending was asked to stop."""


class Production:
    """One sending of a split.

    Args:
        connection: How to reach the broker.
        source: The samples.
        plan: What to do with them.
        should_stop: Tells whether to stop at the next occasion.
        tell: Takes sentences that a person may want to read.
        show: Takes note of how far it is; called often, and has to be quick.
    """

    def __init__(
        self,
        connection: BrokerConnection,
        source: ProductionSource,
        plan: Plan,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        tell: Callable[[str], None] = lambda text: None,
        show: Callable[[ProductionProgress], None] = lambda progress: None,
    ) -> None:
        self._source, self._plan, self._connection = source, plan, connection
        self._should_stop, self._tell, self._show = should_stop, tell, show
        self._silent = False
        self._epoch = self._samples = 0
        self.producer = SampleProducer(
            connection,
            plan.topic,
            source.structure,
            partitions=plan.partitions,
            samples_per_record=plan.samples_per_record,
            name=plan.producer,
            resume=plan.resume,
            on_wait=self._waiting,
        )
        self._began = time.monotonic()

    @property
    def progress(self) -> ProductionProgress:
        """Samples, records and bytes that have been sent so far."""
        producer = self.producer
        return ProductionProgress(
            topic=self._plan.topic,
            partitions=producer.partitions,
            epoch=self._epoch + 1,
            samples=self._samples,
            records=producer.acknowledged,
            waiting=producer.sent - producer.acknowledged,
            already_there=producer.run.arrived,
            bytes=producer.sent_bytes,
            seconds=time.monotonic() - self._began,
        )

    def run(self) -> bool:
        """Send everything and wait until it has arrived.

        Returns:
            Whether it came to its end; `False` where it was stopped before.

        Raises:
            TopicError: Records were given up, or do not fit the structure.
        """
        try:
            self._send_all()
            self.producer.flush(None)
            return True
        except Stopped:
            self._flush_at_last()
            return False
        finally:
            self._show(self.progress)

    def _send_all(self) -> None:
        self._epoch = self._first_epoch()
        begun_at = self._epoch
        while self._plan.epochs is None or self._epoch < self._plan.epochs:
            empty = True
            for batch in regrouped(
                self._source.structure, self._source.epoch(self._epoch), self._plan.samples_per_record
            ):
                self._send(batch)
                empty = False
            if empty and self._epoch == begun_at:
                raise TopicError(f"There is nothing to send to topic {self._plan.topic}. Expected samples, got none.")
            self._epoch += 1
        self._epoch -= 1

    def _first_epoch(self) -> int:
        """Skip whole epochs that arrived before, where all have as many records."""
        run, samples = self.producer.run, self._source.samples
        if not run.last or not samples:
            return 0
        of_epoch = -(-samples // self._plan.samples_per_record)
        epochs = run.first_needed // of_epoch
        if self._plan.epochs is not None:
            epochs = min(epochs, self._plan.epochs)
        self.producer.skip_records(epochs * of_epoch)
        return epochs

    def _send(self, batch: Any) -> None:
        structure, size = self._source.structure, self._plan.samples_per_record
        if self._plan.rate is None:
            self._send_part(batch)
            return
        count = sample_count(structure, batch)
        step = max(1, int(self._plan.rate * _PACED_SECONDS / size)) * size
        for start in range(0, count, step):
            self._wait_for_turn()
            self._send_part(sample_slice(structure, batch, start, start + step))

    def _send_part(self, batch: Any) -> None:
        if self._should_stop():
            raise Stopped
        count = sample_count(self._source.structure, batch)
        try:
            sent = self.producer.send(batch)
        except RecordError as error:
            raise TopicError(
                f"Epoch {self._epoch + 1} has samples that cannot be sent to topic {self._plan.topic}. {error} "
                "Correct what `dataset` returns."
            ) from error
        self._samples += min(count, sent * self._plan.samples_per_record)
        self._show(self.progress)

    def _wait_for_turn(self) -> None:
        """Wait until the next sample is due: by the start and the number of samples, so that no delay adds up."""
        if not self._samples:
            self._began = time.monotonic()
        due = self._began + self._samples / self._plan.rate
        while (left := due - time.monotonic()) > 0:
            if self._should_stop():
                raise Stopped
            self.producer.poll()
            self._show(self.progress)
            time.sleep(min(left, _LONGEST_SLEEP))

    def _waiting(self, seconds: float) -> None:
        """Say once that the broker is silent, and once that it is back."""
        if self._should_stop():
            raise Stopped
        if seconds >= SILENT_SECONDS and not self._silent:
            self._silent = True
            servers = ", ".join(self._connection.servers)
            self._tell(
                f"The broker at {servers} has acknowledged nothing for {seconds:.0f} s; "
                f"{self.progress.waiting:,} records wait for it."
            )
        elif self._silent and seconds == 0:
            self._silent = False
            self._tell("The broker acknowledges records again.")
        self._show(self.progress)

    def _flush_at_last(self) -> None:
        """Give the broker some seconds to acknowledge what was sent; if it does not, --resume finds out later."""
        self._should_stop = lambda: False
        self._tell(f"Waiting for the acknowledgement of {self.progress.waiting:,} records.")
        try:
            self.producer.flush(REQUEST_SECONDS)
        except TopicError:
            if self.producer.failed:
                raise
            self._tell(
                f"The broker at {', '.join(self._connection.servers)} did not acknowledge {self.progress.waiting:,} "
                "records; --resume finds out which of them arrived."
            )
