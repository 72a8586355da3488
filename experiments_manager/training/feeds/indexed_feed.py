"""A `keras.utils.PyDataset` as a feed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds.feed import Feed, require_batches
from experiments_manager.training.feeds.pipeline_probe import differ, draws_from_host
from experiments_manager.training.seeds import derive


class IndexedFeed(Feed):
    """A `keras.utils.PyDataset`: batches are asked for by index, so any place can be begun at.

    One that has a method `batch_of_epoch(epoch, index)` is asked by that, and may give other batches in each epoch.
    """

    batches_can_be_held = takes_ahead = True

    def __init__(
        self,
        source: keras.utils.PyDataset,
        *,
        split: str,
        seed: int,
        shuffle: bool,
        steps_per_epoch: int | None = None,
        augment: Callable[..., Any] | None = None,
    ) -> None:
        self.split, self._source, self._seed, self._shuffle = split, source, seed, shuffle
        if augment is not None:
            raise DataError(
                "augment: batches of a `keras.utils.PyDataset` are made by its own Python code. Expected arrays or a "
                "`tf.data.Dataset` for the `augment` hook, got a PyDataset. Augment inside its `__getitem__`."
            )
        self._batches = source.num_batches
        if self._batches is None:
            if steps_per_epoch is None:
                raise DataError(
                    f"dataset: the {split} PyDataset has no length. Expected `__len__`, got None. "
                    "Define `__len__`, or set `steps_per_epoch`."
                )
            self._batches = steps_per_epoch
        require_batches(self._batches, split)
        self.steps = min(steps_per_epoch or self._batches, self._batches)
        first, self.draws_from_host = draws_from_host(lambda: _as_tuple(source[0]))
        self._first = tf.nest.map_structure(np.asarray, first)
        self.spec = tf.nest.map_structure(
            lambda leaf: tf.TensorSpec([None, *leaf.shape[1:]], _dtype_of(leaf)), self._first
        )
        self._trained_epoch: int | None = None
        self._repeats = not (self.draws_from_host or differ([self._first], [_as_tuple(source[0])]))
        # What it does to itself there, a new process cannot know.
        changes_itself = type(source).on_epoch_end is not keras.utils.PyDataset.on_epoch_end
        if changes_itself:
            self.inexact_reasons = [f"the {split} data: what its `on_epoch_end` changes is in no checkpoint"]
        elif not self._repeats:
            self.inexact_reasons = [
                f"the {split} data: `__getitem__` gives another batch for the same index each time. Draw from a "
                "generator that is made in it from the index"
            ]
        self.kind = "inexact" if self.inexact_reasons else "indexed"

    def open(self, epoch: int, step: int = 0) -> Any:
        """Return an iterator over the batches from `step` on; the PyDataset's `workers` threads fetch them."""
        self.opens_pass()
        if self._trained_epoch is not None and self._trained_epoch != epoch:
            self._source.on_epoch_end()
        self._trained_epoch = epoch
        order = np.arange(self._batches)
        if self._shuffle:
            order = np.random.default_rng([derive(self._seed, "order"), epoch]).permutation(self._batches)
        kinds = [spec.dtype for spec in tf.nest.flatten(self.spec)]
        by_epoch = getattr(self._source, "batch_of_epoch", None)

        def fetch(index: np.ndarray) -> list[np.ndarray]:
            batch = _as_tuple(by_epoch(epoch, int(index)) if by_epoch else self._source[int(index)])
            return [
                np.asarray(leaf, kind.as_numpy_dtype) for leaf, kind in zip(tf.nest.flatten(batch), kinds, strict=True)
            ]

        def batch(index: tf.Tensor) -> Any:
            leaves = tf.numpy_function(fetch, [index], kinds)
            for leaf, spec in zip(leaves, tf.nest.flatten(self.spec), strict=True):
                leaf.set_shape(spec.shape)
            return tf.nest.pack_sequence_as(self.spec, leaves)

        if self.replays:
            for number in order[:step]:
                fetch(number)
        self.replays = False
        indices = tf.data.Dataset.from_tensor_slices(order[step : self.steps])
        workers = max(1, getattr(self._source, "workers", 1))
        return iter(indices.map(batch, num_parallel_calls=workers, deterministic=True).prefetch(2))

    @property
    def python(self) -> tuple[Any, ...]:
        """The PyDataset, whose threads run ahead of the steps."""
        return (self._source,)

    @property
    def reads_in_parallel(self) -> bool:
        """Whether several threads ask for batches."""
        return getattr(self._source, "workers", 1) > 1

    def take(self, source: Any, step: tf.Tensor) -> Any:
        """In the graph: the next batch."""
        return source.get_next()

    def sample_batch(self) -> Any:
        """Return a first batch."""
        return tf.nest.map_structure(tf.convert_to_tensor, self._first)

    def content(self) -> dict[str, Any]:
        """Return the first, the middle and the last batch, unless `__getitem__` gives others each time."""
        if not self._repeats:
            return {}
        others = {number: _as_tuple(self._source[number]) for number in (self._batches // 2, self._batches - 1)}
        return {f"of batch {number}": batch for number, batch in {**others, 0: self._first}.items()}

    def as_dataset(self) -> tf.data.Dataset:
        """Return all batches in their order."""
        return tf.data.Dataset.from_generator(
            lambda: (_as_tuple(self._source[number]) for number in range(self._batches)), output_signature=self.spec
        )


def _as_tuple(batch: Any) -> Any:
    return tuple(batch) if isinstance(batch, list) else batch


def _dtype_of(leaf: np.ndarray) -> tf.DType:
    return tf.as_dtype(keras.config.floatx()) if leaf.dtype == np.float64 else tf.as_dtype(leaf.dtype)
