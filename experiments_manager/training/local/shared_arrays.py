"""The arrays of several clients of a federation in turn, so that one compiled loop trains for all of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds.array_feed import ArrayFeed
from experiments_manager.training.feeds.feed import Feed, Shape, shuffled_order
from experiments_manager.training.setup.seeds import derive


class ClientSource(NamedTuple):
    """The order of the samples in an epoch, int `[samples]` (empty where nothing is shuffled), and their arrays."""

    order: tf.Tensor
    arrays: Any


class SharedArrays(Feed):
    """Arrays that are exchanged between epochs; the compiled loop gets them as its source.

    Args:
        first: The arrays of some client; those of the others look like them but for the number of samples.
    """

    kind = "arrays"

    def __init__(self, first: ArrayFeed) -> None:
        self.split, self.batch_size, self._shuffle = first.split, first.batch_size, first.shuffle
        self.spec = _spec(first)
        self._order = tf.function(shuffled_order, input_signature=[tf.TensorSpec([], tf.int32)] * 3, autograph=False)
        self.use(first)

    def use(self, feed: ArrayFeed) -> None:
        """Take the arrays of another client from here on.

        Raises:
            DataError: They look different.
        """
        if not same_specs(self.spec, _spec(feed)):
            raise DataError(
                f"dataset: the data of the clients look different. Expected {Shape.of(self.spec).text} as another "
                f"client has, got {Shape.of(_spec(feed)).text}. Return the same arrays for each client."
            )
        self.current_feed, self.steps = feed, feed.steps

    def open(self, epoch: int, step: int = 0) -> ClientSource:
        """Return the order of the samples in `epoch`, and the arrays."""
        feed, order = self.current_feed, tf.zeros([0], tf.int32)
        if self._shuffle:
            order = self._order(tf.constant(feed.samples), tf.constant(derive(feed.seed, "order")), tf.constant(epoch))
        return ClientSource(order, feed.arrays)

    def take(self, source: ClientSource, step: tf.Tensor) -> Any:
        """In the graph: batch number `step` of the epoch."""
        first = step * self.batch_size
        rows = source.order[first : first + self.batch_size] if self._shuffle else None

        def batch(leaf: tf.Tensor | None) -> tf.Tensor | None:
            if leaf is None:
                return None
            return tf.gather(leaf, rows) if self._shuffle else leaf[first : first + self.batch_size]

        return tf.nest.map_structure(batch, source.arrays)

    def sample_batch(self) -> Any:
        """Return a first batch, for building the model and for looking at shapes."""
        return self.current_feed.sample_batch()

    def as_dataset(self) -> tf.data.Dataset:
        """Return the data in batches, not shuffled."""
        return self.current_feed.as_dataset()


def _spec(feed: ArrayFeed) -> Any:
    return tf.nest.map_structure(
        lambda leaf: None if leaf is None else tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype), feed.arrays
    )


def same_specs(first: Any, second: Any) -> bool:
    """Return whether two nests of specs are equal."""
    try:
        tf.nest.assert_same_structure(first, second)
    except (ValueError, TypeError):
        return False
    return tf.nest.flatten(first) == tf.nest.flatten(second)


def shared(feed: Feed | None) -> Feed | None:
    """Return arrays as those of several clients in turn; other feeds as they are."""
    return SharedArrays(feed) if isinstance(feed, ArrayFeed) else feed
