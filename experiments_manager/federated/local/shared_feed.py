"""The data of several clients of a federation in turn, so that one compiled loop trains for all of them.

The compiled loop gets what its batches come from as an argument: the order and the arrays of a client, an iterator, or
what was loaded of a topic. So clients whose samples look alike need no compiled loop of their own.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds.array_feed import ArrayFeed
from experiments_manager.training.feeds.feed import Feed, OptionalBatch, Shape, shuffled_order
from experiments_manager.training.feeds.topics.batch_buffer import LoadedBatches
from experiments_manager.training.seeds import derive


class ClientSource(NamedTuple):
    """The order of the samples in an epoch, int `[samples]` (empty where nothing is shuffled), and their arrays."""

    order: tf.Tensor
    arrays: Any


class SharedFeed(Feed):
    """Takes batches, in the graph, from whatever the feed of any client opened.

    Args:
        first: The data of some client; those of the others look like them but for the number of samples.
    """

    def __init__(self, first: Feed) -> None:
        self.split, self.kind, self.steps, self.topic = first.split, first.kind, first.steps, first.topic
        self.spec = _spec(first)
        self._first = self._current = first
        self._seen = tf.Variable(0, dtype=tf.int64, trainable=False, name="samples_seen")

    def use(self, feed: Feed, number: int) -> Feed:
        """Return the data of a client in the form that the loop takes batches from.

        Raises:
            DataError: They look different.
        """
        if not same_specs(self.spec, _spec(feed)):
            raise DataError(
                f"dataset: the data of the clients look different. Expected {Shape.of(self.spec).text} as another "
                f"client has, got {Shape.of(_spec(feed)).text} at client {number}. Return the same arrays for each "
                "client."
            )
        self._current = feed
        self._seen.assign(0)
        return _OpenedArrays(feed) if isinstance(feed, ArrayFeed) else feed

    def open(self, epoch: int, step: int = 0) -> Any:
        """Return the source of an epoch of the first client."""
        return self.use(self._first, 0).open(epoch, step)

    def take(self, source: Any, step: tf.Tensor) -> Any:
        """In the graph: batch number `step` of the epoch, or an optional one that is empty where the data ends."""
        if isinstance(source, ClientSource):
            return _batch(source, step, self._current.batch_size, self._current.shuffle)
        loaded = isinstance(source, LoadedBatches)
        batch = self._current.take(source, step) if loaded else source.get_next_as_optional()
        return OptionalBatch(batch.has_value(), lambda: self._counted(batch.get_value()))

    def _counted(self, batch: Any) -> Any:
        leaf = next(leaf for leaf in tf.nest.flatten(batch) if leaf is not None)
        rows = leaf.nrows() if isinstance(leaf, tf.RaggedTensor) else tf.shape(leaf)[0]
        self._seen.assign_add(tf.cast(rows, tf.int64))
        return batch

    def samples(self, epochs: int = 1) -> int:
        """Return how many samples were taken since `use`, on the average of so many epochs."""
        feed = self._current
        if isinstance(feed, ArrayFeed):
            return min(feed.samples, feed.steps * feed.batch_size)
        return round(int(self._seen) / epochs)

    def sample_batch(self) -> Any:
        """Return a first batch, for building the model and for looking at shapes."""
        return self._first.sample_batch()

    def content(self) -> None:
        """Return nothing: which clients there are, and what they have, is theirs to know."""

    def as_dataset(self) -> tf.data.Dataset:
        """Return the data of the first client in batches, not shuffled."""
        return self._first.as_dataset()

    def restore(self, position: dict[str, Any], prefix: Path) -> bool:
        """Do nothing: where clients are in their data is part of what they keep."""
        return False

    def close(self) -> None:
        """Let go of what reads ahead."""
        self._first.close()


class _OpenedArrays(Feed):
    """Arrays of a client, whose source holds them."""

    kind = "arrays"

    def __init__(self, feed: ArrayFeed) -> None:
        self._feed = feed
        self.split, self.spec, self.steps = feed.split, feed.spec, feed.steps

    def open(self, epoch: int, step: int = 0) -> ClientSource:
        """Return the order of the samples in `epoch`, and the arrays."""
        feed, order = self._feed, tf.zeros([0], tf.int32)
        if feed.shuffle:
            order = _order()(tf.constant(feed.samples), tf.constant(derive(feed.seed, "order")), tf.constant(epoch))
        return ClientSource(order, feed.arrays)

    def take(self, source: ClientSource, step: tf.Tensor) -> Any:
        """In the graph: batch number `step` of the epoch."""
        return _batch(source, step, self._feed.batch_size, self._feed.shuffle)

    def sample_batch(self) -> Any:
        """Return a first batch."""
        return self._feed.sample_batch()

    def as_dataset(self) -> tf.data.Dataset:
        """Return the data in batches, not shuffled."""
        return self._feed.as_dataset()


@functools.cache
def _order() -> Any:
    return tf.function(shuffled_order, input_signature=[tf.TensorSpec([], tf.int32)] * 3, autograph=False)


def _batch(source: ClientSource, step: tf.Tensor, batch_size: int, shuffle: bool) -> Any:
    first = step * batch_size
    rows = source.order[first : first + batch_size] if shuffle else None

    def batch(leaf: tf.Tensor | None) -> tf.Tensor | None:
        if leaf is None:
            return None
        return tf.gather(leaf, rows) if shuffle else leaf[first : first + batch_size]

    return tf.nest.map_structure(batch, source.arrays)


def _spec(feed: Feed) -> Any:
    """Return what batches look like, whatever their number of samples."""

    def of_any_size(leaf: Any) -> Any:
        if not isinstance(leaf, tf.TensorSpec) or leaf.shape.rank in (None, 0):
            return leaf
        return tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype)

    return tf.nest.map_structure(of_any_size, feed.spec)


def same_specs(first: Any, second: Any) -> bool:
    """Return whether two nests of specs are equal."""
    try:
        tf.nest.assert_same_structure(first, second)
    except (ValueError, TypeError):
        return False
    return tf.nest.flatten(first) == tf.nest.flatten(second)
