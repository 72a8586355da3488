"""Arrays as a feed: batched and shuffled inside the graph, in an order that follows from `(seed, epoch)` alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments_manager.common.error_text import reason
from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds.augmentation import augmented
from experiments_manager.training.feeds.columns import of_numbers_or_text, refuse_columns_of_text, refuse_odd_columns
from experiments_manager.training.feeds.feed import HOST_BYTES, Feed, epoch_order, leaf_names, require_batches
from experiments_manager.training.feeds.pipeline_probe import differ, draws_from_host, read
from experiments_manager.training.feeds.pipelines import irreproducible_operation, runs_python_in_parallel
from experiments_manager.training.seeds import derive

BYTES_SHUFFLED_AT_ONCE = 2**24
"""Bytes up to which arrays are brought into the order of an epoch at its beginning; a batch is then a part of them."""


def as_arrays(data: Any, split: str, *, allow_nan: bool = False) -> Any:
    """Turn what a `dataset` hook returned into nested tensors that share their first dimension.

    Floating-point arrays become float32 (Keras' `floatx`), as in `keras.Model.fit`.

    Args:
        data: `x`, `(x, y)` or `(x, y, sample_weight)`, each an array or a nest of arrays (tuple, list, dict).
        split: For messages.
        allow_nan: Whether values may be NaN.

    Returns:
        The same nest with tensors in the place of arrays.

    Raises:
        DataError: If a leaf is no array, lengths differ, there is no sample, or a value is NaN.
    """
    if isinstance(data, tuple) and len(data) > 3:
        raise DataError(
            f"dataset: the {split} split is a tuple of {len(data)} parts. Expected `x`, `(x, y)` or "
            f"`(x, y, sample_weight)`. Put several inputs into a dictionary or a list: `({{'a': …, 'b': …}}, y)`."
        )
    refuse_odd_columns(data, split)
    leaves = tf.nest.flatten(data)
    paths = leaf_names(data)
    tensors = [_as_tensor(leaf, name, split) for leaf, name in zip(leaves, paths, strict=True)]
    lengths = [None if tensor is None else int(tensor.shape[0]) for tensor in tensors]
    known = [length for length in lengths if length is not None]
    if len(set(known)) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in zip(paths, lengths, strict=True))
        raise DataError(
            f"dataset: the arrays of the {split} split differ in length. Expected the same number of samples in each, "
            f"got {listed}. Return arrays whose first dimension is the sample."
        )
    require_batches(known[0] if known else 0, split)
    if not allow_nan:
        for tensor, name in zip(tensors, paths, strict=True):
            _refuse_nan(tensor, name, split)
    return tf.nest.pack_sequence_as(data, tensors)


def _as_tensor(leaf: Any, name: str, split: str) -> tf.Tensor | None:
    if leaf is None:
        return None
    if isinstance(leaf, tf.RaggedTensor | tf.SparseTensor):
        raise DataError(
            f"dataset: {name} of the {split} split is a {type(leaf).__name__}. Expected a dense array. "
            "Pad it (`.to_tensor()`, `tf.sparse.to_dense`), or return a `tf.data.Dataset`."
        )
    if hasattr(leaf, "to_numpy"):  # pandas
        refuse_columns_of_text(leaf, name, split)
        leaf = leaf.to_numpy()
    with tf.device("CPU:0"):
        try:
            array = leaf if tf.is_tensor(leaf) else np.asarray(leaf)
            array = array if tf.is_tensor(array) else of_numbers_or_text(array, name, split)
            if array.dtype == np.float64 or array.dtype == tf.float64:
                array = (
                    tf.cast(array, keras.config.floatx())
                    if tf.is_tensor(array)
                    else array.astype(keras.config.floatx())
                )
            tensor = tf.convert_to_tensor(array)
        except (ValueError, TypeError) as error:
            raise DataError(
                f"dataset: {name} of the {split} split is no array. Expected NumPy arrays, tensors, a "
                f"`tf.data.Dataset` or a `keras.utils.PyDataset`, got {type(leaf).__name__} ({reason(error)}). "
                "Return one of these from `dataset`."
            ) from error
    if tensor.shape.rank == 0:
        raise DataError(
            f"dataset: {name} of the {split} split is a single value. Expected an array with one row a sample, "
            f"got {leaf!r}. Return arrays, a `tf.data.Dataset` or a `keras.utils.PyDataset`."
        )
    return tensor


def _refuse_nan(tensor: tf.Tensor | None, name: str, split: str) -> None:
    if tensor is None or not tensor.dtype.is_floating:
        return
    if bool(tf.math.is_finite(tf.reduce_sum(tensor))):  # one cheap pass; NaN and Inf both survive a sum
        return
    values = tensor.numpy()
    bad = np.argwhere(~np.isfinite(values.astype(np.float32)))
    if len(bad) == 0:  # the sum overflowed
        return
    raise DataError(
        f"dataset: {name} of the {split} split holds {len(bad)} values that are NaN or infinite, the first in sample "
        f"{bad[0][0]}. Expected finite numbers. Clean the data, or set `allow_nan = True` where your loss masks them."
    )


def _each(change: Callable[[tf.Tensor], Any], nest: Any) -> Any:
    """Change the arrays of a nest; `None` in it stays."""
    return tf.nest.map_structure(lambda leaf: None if leaf is None else change(leaf), nest)


def _bytes_of(leaves: list[tf.Tensor]) -> int:
    return sum(leaf.dtype.size * leaf.shape.num_elements() for leaf in leaves)


class ArrayFeed(Feed):
    """Nested arrays, the fast and exact path: the position is the epoch and the step in it."""

    kind = "arrays"

    def __init__(
        self,
        arrays: Any,
        *,
        split: str,
        batch_size: int,
        shuffle: bool,
        seed: int,
        steps_per_epoch: int | None = None,
    ) -> None:
        self.split, self.batch_size, self.shuffle = split, batch_size, shuffle
        leaves = [leaf for leaf in tf.nest.flatten(arrays) if leaf is not None]
        self.samples = int(leaves[0].shape[0])
        all_steps = -(-self.samples // batch_size)
        self.steps = min(steps_per_epoch or all_steps, all_steps)
        self.arrays = self._place(arrays, leaves)
        self.in_memory = not shuffle or _bytes_of(leaves) <= BYTES_SHUFFLED_AT_ONCE
        self.batches_can_be_held = self.takes_ahead = not self.in_memory
        # A static batch dimension lets XLA and shape-dependent models see the whole shape.
        divides = self.samples % batch_size == 0 or self.steps * batch_size <= self.samples
        self._static = batch_size if divides else None
        self.whole_batches = self.steps if divides else self.steps - 1
        self.spec = _each(lambda leaf: tf.TensorSpec([self._static, *leaf.shape[1:]], leaf.dtype), self.arrays)
        self.whole_spec = _each(lambda leaf: tf.TensorSpec([batch_size, *leaf.shape[1:]], leaf.dtype), self.arrays)
        self.seed = seed
        self._order = tf.function(self._make_order, input_signature=[tf.TensorSpec([], tf.int64)], autograph=False)

    @staticmethod
    def _place(arrays: Any, leaves: list[tf.Tensor]) -> Any:
        if _bytes_of(leaves) < HOST_BYTES and tf.config.list_logical_devices("GPU"):
            return _each(tf.identity, arrays)
        return arrays

    def _make_order(self, epoch: tf.Tensor) -> Any:
        order = epoch_order(self.samples, self.seed, epoch)
        return _each(lambda leaf: tf.gather(leaf, order), self.arrays) if self.in_memory else order

    def open(self, epoch: int, step: int = 0) -> Any:
        """Return the arrays in the order of `epoch`, or, where they are large, that order, int `[samples]`."""
        return self._order(tf.constant(epoch, tf.int64)) if self.shuffle else self.arrays

    def in_order(self, epoch: tf.Tensor) -> Any:
        """In the graph: what `open` returns."""
        return self._make_order(epoch) if self.shuffle else self.arrays

    def take(self, source: Any, step: tf.Tensor) -> Any:
        """In the graph: batch number `step` of the epoch."""
        first = step * self.batch_size
        rows = slice(first, first + self.batch_size)

        def sized(part: tf.Tensor) -> tf.Tensor:
            return part if self._static is None else tf.ensure_shape(part, [self._static, *part.shape[1:]])

        if self.in_memory:
            return _each(lambda leaf: sized(leaf[rows]), source)
        return _each(lambda leaf: sized(tf.gather(leaf, source[rows])), self.arrays)

    def take_whole(self, source: Any, step: tf.Tensor) -> Any:
        """In the graph: batch number `step`, which has `batch_size` samples; only where `in_memory`."""
        first, size = step * self.batch_size, self.batch_size
        return _each(
            lambda leaf: tf.slice(leaf, [first] + [0] * (leaf.shape.rank - 1), [size, *leaf.shape[1:]]), source
        )

    def content(self) -> dict[str, Any]:
        """Return the arrays, for the fingerprint of the data."""
        return {"": self.arrays}

    def sample_batch(self) -> Any:
        """Return a first batch, unshuffled, for building the model and for looking at shapes."""
        return _each(lambda leaf: leaf[: self.batch_size], self.arrays)

    def as_dataset(self) -> tf.data.Dataset:
        """Return the data as a hook may want to see it: in batches, not shuffled and not augmented."""
        return tf.data.Dataset.from_tensor_slices(without_lists(self.arrays)).batch(self.batch_size)


def without_lists(nest: Any) -> Any:
    """Return the same with tuples in the place of lists, which `tf.data` would make one tensor of."""
    if type(nest) is dict:
        return {key: without_lists(part) for key, part in nest.items()}
    return tuple(map(without_lists, nest)) if type(nest) in (list, tuple) else nest


class AugmentedFeed(Feed):
    """Arrays with an `augment(x, y, seed)` hook, run in parallel with a seed for each `(seed, epoch, sample)`.

    One pipeline of stateless operations: its place is again two integers, since any epoch can be begun at any step.
    """

    kind = "arrays"
    batches_can_be_held = takes_ahead = True

    def __init__(
        self,
        arrays: Any,
        *,
        split: str,
        batch_size: int,
        shuffle: bool,
        seed: int,
        augment: Callable[..., Any],
        steps_per_epoch: int | None = None,
    ) -> None:
        self.split = split
        self.plain = ArrayFeed(
            arrays, split=split, batch_size=batch_size, shuffle=shuffle, seed=seed, steps_per_epoch=steps_per_epoch
        )
        self.steps = self.plain.steps
        self._augment, self._seed, self._batch_size, self._shuffle = augment, seed, batch_size, shuffle
        self._iterator: Any = None
        self._next: tuple[int, int] | None = None
        dataset = self._pipeline(0, 0)
        self.spec = dataset.element_spec
        self.inexact_reasons = self._what_draws(dataset)
        self.kind = "irreproducible" if self.inexact_reasons else "arrays"

    def _what_draws(self, dataset: tf.data.Dataset) -> list[str]:
        """Why a hook that does not keep to its seed makes no two runs equal; nothing where it does."""
        found = irreproducible_operation(dataset)
        if found is None and runs_python_in_parallel(dataset):
            first, self.draws_from_host = draws_from_host(lambda: read(iter(dataset), 1))
            if self.draws_from_host or differ(first, read(iter(dataset), 1)):
                found = "Python that draws random numbers or keeps a state"
        if found is None:
            return []
        return [f"`augment` has {found}, which is not reproducible: draw from its `seed` (`tf.random.stateless_*`)"]

    def _pipeline(self, first_epoch: int, first_step: int) -> tf.data.Dataset:
        plain, samples = self.plain, self.plain.samples
        limit = min(samples, self.steps * self._batch_size)
        key = derive(self._seed, "augment")

        def sample(epoch: tf.Tensor, row: tf.Tensor) -> Any:
            parts = tf.nest.map_structure(lambda leaf: None if leaf is None else tf.gather(leaf, row), plain.arrays)
            number = tf.cast(epoch, tf.int64) * samples + tf.cast(row, tf.int64)
            return without_lists(augmented(self._augment, parts, tf.stack([tf.constant(key, tf.int64), number])))

        def epoch_samples(epoch: tf.Tensor) -> tf.data.Dataset:
            order = epoch_order(samples, self._seed, epoch) if self._shuffle else tf.range(samples)
            skipped = tf.where(tf.equal(epoch, first_epoch), first_step, 0) * self._batch_size
            rows = tf.data.Dataset.from_tensor_slices(order[skipped:limit])
            rows = rows.map(lambda row: sample(epoch, row), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            return rows.batch(self._batch_size, drop_remainder=limit % self._batch_size == 0)

        epochs = tf.data.Dataset.counter(start=first_epoch)
        return epochs.flat_map(epoch_samples).prefetch(2)

    def open(self, epoch: int, step: int = 0) -> Any:
        """Return the iterator; it simply goes on where the epoch asked for is the one that follows."""
        if self._next != (epoch, step):
            self._iterator = iter(self._pipeline(epoch, step))
        self._next = (epoch + 1, 0)
        return self._iterator

    def close(self) -> None:
        """Let go of the iterator, which reads ahead."""
        self._iterator = self._next = None

    def take(self, source: Any, step: tf.Tensor) -> Any:
        """In the graph: the next batch."""
        return source.get_next()

    def content(self) -> dict[str, Any]:
        """Return the arrays as they are before augmentation."""
        return self.plain.content()

    def sample_batch(self) -> Any:
        """Return a first batch, not augmented."""
        return self.plain.sample_batch()

    def as_dataset(self) -> tf.data.Dataset:
        """Return the data as a hook may want to see it: in batches, not shuffled and not augmented."""
        return self.plain.as_dataset()
