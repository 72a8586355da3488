"""Batches from a topic's samples without `tf.data`: one tensor a leaf holds those of a call of the compiled loop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from experiments_manager.kafka.records.buffers import BufferPool
from experiments_manager.training.feeds.feed import OptionalBatch
from experiments_manager.training.feeds.topics.composites import dtype_in_training
from experiments_manager.training.feeds.topics.topic_source import TopicSource

_MOST_BYTES = 2**23
_MOST_BATCHES = 1024


class LoadedBatches(NamedTuple):
    """What the compiled loop takes batches from.

    Attributes:
        first: Number of the step that the first of them is for, int32.
        rows: Samples that are there, int32.
        leaves: A tensor of each leaf, `[samples, …]`; what comes after `rows` is arbitrary.
    """

    first: tf.Tensor
    rows: tf.Tensor
    leaves: tuple[tf.Tensor, ...]


class BatchBuffer:
    """Puts samples together for one call of the compiled loop.

    All tensors have the same size, so that the loop is traced once, and memory of their own, which is used again.

    Args:
        source: Its samples are plain.
        batch_size: Samples in a batch.
    """

    def __init__(self, source: TopicSource, batch_size: int) -> None:
        self._dtypes = [np.dtype(dtype_in_training(leaf).as_numpy_dtype) for leaf in source.leaves]
        self._shapes = [tuple(leaf.shape) for leaf in source.leaves]
        self._source, self._batch_size = source, batch_size
        width = sum(
            int(np.prod(shape)) * dtype.itemsize for shape, dtype in zip(self._shapes, self._dtypes, strict=True)
        )
        self.capacity = max(1, min(_MOST_BATCHES, _MOST_BYTES // max(1, width * batch_size)))
        """Batches that it holds at most."""
        self._pool = BufferPool()

    def load(self, pieces: Iterable[Sequence[np.ndarray]]) -> LoadedBatches:
        """Return batches of samples, the first of them for step 0.

        Args:
            pieces: The samples, as arrays of each leaf; `capacity` batches at most.
        """
        rows, size = 0, self.capacity * self._batch_size
        arrays = [
            self._pool.empty((size, *shape), dtype) for shape, dtype in zip(self._shapes, self._dtypes, strict=True)
        ]
        for piece in pieces:
            for array, part in zip(arrays, piece, strict=True):
                np.copyto(array[rows : rows + len(part)], part, casting="same_kind")
            rows += len(piece[0])
        return LoadedBatches(tf.constant(0), tf.constant(rows), tuple(map(_shared, arrays)))

    def placed(self, loaded: LoadedBatches, first: int) -> LoadedBatches:
        """Return the batches for the steps from `first` on."""
        return loaded._replace(first=tf.constant(first))

    def take(self, loaded: LoadedBatches, step: tf.Tensor) -> OptionalBatch:
        """In the graph: the batch for a step; none where there are no more samples."""
        start = (step - loaded.first) * self._batch_size
        stop = tf.minimum(start + self._batch_size, loaded.rows)
        return OptionalBatch(start < stop, lambda: self._source.packed([leaf[start:stop] for leaf in loaded.leaves]))


def _shared(array: np.ndarray) -> tf.Tensor:
    """Return a tensor in the memory of an array, where TensorFlow can take it."""
    try:
        return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    except (BufferError, RuntimeError, tf.errors.OpError):  # bfloat16 and its like
        return tf.constant(array)
