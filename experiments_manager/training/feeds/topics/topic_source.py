"""A Kafka topic as TensorFlow sees it: readers from any place, batches of tensors, what a first batch looks like."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments_manager.kafka.connection import BrokerConnection
from experiments_manager.kafka.dead_letters import BadRecords
from experiments_manager.kafka.reading.decoding import Decoder
from experiments_manager.kafka.reading.group_reader import GroupReader, OffsetCommitter, overtaken
from experiments_manager.kafka.reading.reader import TopicReader, removed_error
from experiments_manager.kafka.reading.rotation import Position
from experiments_manager.kafka.reading.sample_reader import SamplePosition, SampleReader
from experiments_manager.kafka.reading.shuffling import Shuffle
from experiments_manager.kafka.records.buffers import BufferPool
from experiments_manager.kafka.records.composite import concatenated
from experiments_manager.kafka.records.structure import Leaf
from experiments_manager.kafka.topics import Topics
from experiments_manager.training.errors import DataError, OvertakenError
from experiments_manager.training.feeds.array_feed import without_lists
from experiments_manager.training.feeds.topics.composites import (
    batch_spec,
    blank_batch,
    dtype_in_training,
    padded,
    to_tensor,
)


@dataclasses.dataclass
class TopicSource:
    """A topic and what of it a run reads.

    Attributes:
        connection: How to reach the broker.
        topic: Its name.
        decoder: Turns its records into samples.
        start: Where the run begins.
        ends: For each partition the offset at which a pass ends; `None`: the topic is followed.
        samples_per_record: As the first record has them.
        partition_wait: See `kafka_partition_wait`.
        idle_timeout: See `kafka_idle_timeout`.
        max_bad: See `kafka_max_bad`.
        group: Consumer group of the run alone, to which the offsets of its checkpoints are committed; `None`: none.
        shared_group: Consumer group that shares the partitions of a live topic; `None`: the run reads all of them.
        member: Name of the run in it, which no other run has.
        sends_bad: Whether records that cannot be decoded go to the topic of dead letters.
    """

    connection: BrokerConnection
    topic: str
    decoder: Decoder
    start: Position
    ends: Mapping[int, int] | None
    samples_per_record: int = 1
    partition_wait: float | None = None
    idle_timeout: float | None = None
    max_bad: float = 0.001
    group: str | None = None
    shared_group: str | None = None
    member: str | None = None
    sends_bad: bool = True
    _committer: OffsetCommitter | None = None
    _buffers: BufferPool = dataclasses.field(default_factory=BufferPool)

    @property
    def is_live(self) -> bool:
        """Whether the topic is followed."""
        return self.ends is None

    @property
    def expected_samples(self) -> int:
        """Samples of a range, if every record has as many as the first and transactions left no gaps."""
        offsets = sum(max(0, end - self.start.offsets.get(number, end)) for number, end in self.ends.items())
        return offsets * self.samples_per_record

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """The arrays of a sample."""
        return self.decoder.structure.leaves

    @property
    def is_dense(self) -> bool:
        """Whether all samples have the same shapes."""
        return not any(leaf.varies for leaf in self.leaves)

    @property
    def is_plain(self) -> bool:
        """Whether all samples are arrays of numbers of the same shapes."""
        return self.is_dense and not any(leaf.ragged or leaf.sparse or leaf.is_string for leaf in self.leaves)

    def reader(
        self,
        position: SamplePosition | None,
        *,
        shuffle: int = 0,
        seed: int = 0,
        epoch: int = 0,
        bounded: bool = False,
        least_ahead: int = 1,
    ) -> SampleReader:
        """Return a reader from a position, by default from the start.

        Args:
            position: Where to begin.
            shuffle: Samples among which it shuffles; 0: it does not.
            seed: For the order.
            epoch: For the order.
            bounded: Whether it ends where a live topic ends now.
            least_ahead: Samples to read ahead.
        """
        ends = self.ends
        if bounded and ends is None:
            ends = {number: end for number, (_, end) in Topics(self.connection).range_of(self.topic).bounds.items()}
        is_shared = ends is None and self.shared_group is not None
        position = position or SamplePosition(Position({}) if is_shared else self.start)
        patience = self.partition_wait if ends is None else None

        def read(place: Position, release: Callable[[], Position | None]) -> TopicReader:
            if is_shared:
                start, own = self.start.offsets, place.offsets
                names = (self.shared_group, self.member)
                return GroupReader(self.connection, self.topic, *names, start, own, patience, release)
            return TopicReader(self.connection, self.topic, place, ends, patience)

        return SampleReader(
            read,
            self.decoder,
            position,
            BadRecords(
                self.connection,
                self.topic,
                self.max_bad,
                position.records_read,
                position.bad,
                sends=self.sends_bad,
            ),
            shuffle=Shuffle(shuffle, seed, epoch) if shuffle else None,
            idle_timeout=self.idle_timeout if ends is None else None,
            least_ahead=least_ahead,
            buffers=self._buffers,
        )

    def batch_spec(self) -> Any:
        """Return the nested `tf.TensorSpec` of a batch."""
        return self.packed([batch_spec(leaf, dtype_in_training(leaf)) for leaf in self.leaves])

    def dataset(self, reader: SampleReader, batch_size: int, *, counts: bool = True) -> tf.data.Dataset:
        """Return the samples that a reader has not handed over yet, in batches.

        Args:
            reader: Reads ahead.
            batch_size: Samples in a batch.
            counts: Whether somebody calls its `took`; else samples count as taken once they are handed over.
        """
        signature = tuple(batch_spec(leaf, dtype_in_training(leaf)) for leaf in self.leaves)

        def chunks() -> Iterator[list[Any]]:
            for chunk in reader.chunks():
                yield chunk
                if not counts:
                    reader.took(len(chunk[0]))

        def converted(chunks: Iterable[list[Any]]) -> Iterator[tuple[Any, ...]]:
            for chunk in chunks:
                yield tuple(as_trained(leaf, array) for leaf, array in zip(self.leaves, chunk, strict=True))

        if self.is_dense:
            dataset = tf.data.Dataset.from_generator(lambda: converted(chunks()), output_signature=signature)
            dataset = dataset.prefetch(2).rebatch(batch_size)
        else:
            dataset = tf.data.Dataset.from_generator(
                lambda: converted(in_batches(chunks(), batch_size)), output_signature=signature
            )
        if self.decoder.structure.nest == tuple(range(len(self.leaves))):
            return dataset
        return dataset.map(lambda *leaves: self.packed(leaves))

    def packed(self, leaves: Any) -> Any:
        """Return the nest of a batch with these leaves: `x`, `(x, y)` or `(x, y, sample_weight)`."""
        nest = without_lists(self.decoder.structure.pack(leaves))
        while isinstance(nest, tuple) and len(nest) in (2, 3) and nest[-1] is None:  # no targets, no weights
            nest = nest[:-1]
        return nest[0] if isinstance(nest, tuple) and len(nest) == 1 else nest

    def sample_batch(self, batch_size: int) -> Any:
        """Return a first batch; zeros where the topic holds nothing yet."""
        for batch in self.look(batch_size, self._early()):
            return batch
        return self.packed([blank_batch(leaf, dtype_in_training(leaf)) for leaf in self.leaves])

    def look(self, batch_size: int, position: SamplePosition | None = None) -> Iterator[Any]:
        """Yield the samples in batches, not shuffled, to whoever looks at them; of a live topic up to its end now.

        Raises:
            TopicError: The topic cannot be read.
        """
        reader = self.reader(position, bounded=True, least_ahead=2 * batch_size)
        try:
            yield from self.dataset(reader, batch_size, counts=False)
            reader.require_success()
        finally:
            reader.close()

    def _early(self) -> SamplePosition | None:
        """Return where the topic begins, if the run begins at its end."""
        if not self.is_live:
            return None
        bounds = Topics(self.connection).range_of(self.topic).bounds
        if any(self.start.offsets.get(number, 0) < end for number, (_, end) in bounds.items()):
            return None
        return SamplePosition(Position({number: start for number, (start, _) in bounds.items()}))

    def require_offsets(self, offsets: Mapping[int, int]) -> None:
        """Raise where the topic does not hold what a checkpoint points to.

        Raises:
            TopicError: It does not, another run of the group has trained on what the checkpoint holds, or no broker
                answers.
        """
        if self.shared_group is not None and self.is_live:
            taken = overtaken(self.connection, self.topic, self.shared_group, self.member, offsets)
            for number, since in taken.items():
                raise OvertakenError(
                    f"Another run of the group {self.shared_group} trains on partition {number} of topic {self.topic} "
                    f"from offset {since} on, but this checkpoint holds its samples up to {offsets[number]}, which "
                    "would count twice."
                )
        bounds = Topics(self.connection).range_of(self.topic).bounds
        for number, offset in offsets.items():
            start, end = bounds.get(number, (0, 0))
            if not start <= offset <= end:
                raise removed_error(self.topic, number, offset, start, end)

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Commit offsets to the group, without waiting; it is for those who watch, and must not disturb training."""
        if self.group is None:
            return
        if self._committer is None:
            self._committer = OffsetCommitter(self.connection, self.topic, self.group)
        self._committer.commit(offsets)

    def close(self) -> None:
        """Leave the group."""
        if self._committer is not None:
            self._committer.close()
            self._committer = None


def as_trained(leaf: Leaf, array: Any) -> Any:
    """Return an array with the dtype that it has in training, padded where samples differ in shape; else a tensor."""
    if leaf.ragged or leaf.sparse:
        return to_tensor(array, dtype_in_training(leaf))
    array = padded(array)
    return array.astype(keras.config.floatx()) if array.dtype == np.float64 else array


def in_batches(chunks: Iterable[list[Any]], batch_size: int) -> Iterator[list[Any]]:
    """Yield the samples of chunks in batches; the last one holds what is left."""
    waiting: list[Any] | None = None
    for chunk in chunks:
        waiting = chunk if waiting is None else [concatenated(pair) for pair in zip(waiting, chunk, strict=True)]
        while len(waiting[0]) >= batch_size:
            yield [leaf[:batch_size] for leaf in waiting]
            waiting = [leaf[batch_size:] for leaf in waiting]
    if waiting is not None and len(waiting[0]):
        yield waiting


def read_all(source: TopicSource, most_bytes: int) -> Any:
    """Return all samples of a range as nested arrays, or `None` where they are more than so many bytes."""
    if any(leaf.ragged or leaf.sparse for leaf in source.leaves):
        return None  # a feed of arrays has none of these
    parts: list[list[Any]] = []
    size = 0
    with contextlib.closing(source.reader(None)) as reader:
        for chunk in reader.chunks():
            if source.is_dense:
                chunk = [as_trained(leaf, array) for leaf, array in zip(source.leaves, chunk, strict=True)]
            size += sum(array.nbytes for array in chunk)
            if size > most_bytes:
                return None
            parts.append(chunk)
            reader.took(len(chunk[0]))
        reader.require_success()
    if not parts:
        raise DataError(f"kafka_topics: topic {source.topic} holds no sample. Produce it first.")
    leaves = [concatenated(pieces) for pieces in zip(*parts, strict=True)]
    if not source.is_dense:
        leaves = [as_trained(leaf, array) for leaf, array in zip(source.leaves, leaves, strict=True)]
    return source.packed(leaves)
