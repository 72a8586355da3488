"""Pipelines as feeds: `tf.data.Dataset` and `keras.utils.PyDataset`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments_manager.training.array_feed import augmented
from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds import require_batches
from experiments_manager.training.seeds import derive

logger = logging.getLogger(__name__)

REPLAYED_BATCHES = 64
"""Batches that a resume may run through again where building a pipeline costs more than reading it."""


class StreamFeed:
    """A `tf.data.Dataset` that comes in batches.

    The pipeline is built again for each pass through it, after reseeding with `(seed, pass)`: so the order of a pass
    follows from these two numbers, however the process came there. (Reusing one dataset object alone would not do: the
    state from which it reshuffles cannot be put back.) Inside a pass the iterator itself is saved where TensorFlow
    can save it; otherwise a resume skips the batches of the current pass that were seen. Where passes are short,
    several share one build, since building may take longer than training on them; a resume then runs through those
    of them that came before, `REPLAYED_BATCHES` at most.

    Without `steps_per_epoch` an epoch is a pass. With it, the pass goes on over the epochs' ends, and a new one begins
    where the data ends; only a pipeline that never ends and cannot be saved begins anew with each epoch.
    """

    def __init__(
        self,
        dataset: tf.data.Dataset,
        build: Callable[[int], Any],
        *,
        split: str,
        seed: int,
        steps_per_epoch: int | None = None,
        augment: Callable[..., Any] | None = None,
        rebuild: bool = True,
        varies: bool = False,
    ) -> None:
        self.split = split
        self._hook, self._rebuild = build, rebuild
        self._augment, self._augment_key = augment, derive(seed, "augment")
        self._dataset, self._build = dataset, 0
        self.spec = self._prepared(dataset, 0).element_spec
        cardinality = int(dataset.cardinality())
        require_batches(cardinality if cardinality == 0 else None, split)
        endless = cardinality == tf.data.INFINITE_CARDINALITY
        if endless and steps_per_epoch is None:
            raise DataError(
                f"dataset: the {split} pipeline never ends. Expected a number of batches for an epoch, got none. "
                f"Set `{'steps_per_epoch' if split == 'train' else 'validation_steps'}`, or take the `.repeat()` away."
            )
        self.steps = steps_per_epoch or (cardinality if cardinality > 0 else None)
        self._fixed_steps = steps_per_epoch is not None
        self._random = varies or is_random(dataset)
        self._saveable = _can_be_saved(self._prepared(dataset, 0))
        goes_on = self._fixed_steps and split == "train" and (self._saveable or cardinality > 0)
        self._pass_per_epoch = not goes_on
        shares = self._random and rebuild and not varies and self._saveable and self._pass_per_epoch and self.steps
        self._passes_per_build = max(1, REPLAYED_BATCHES // self.steps) if shares else 1
        self._pass, self._taken, self._iterator = -1, 0, None
        self._passes_begun = 0
        """Of those that share the present build."""

    @property
    def kind(self) -> str:
        """`saved iterator`, `replayed` or `inexact`."""
        if self._random and not self._rebuild:
            return "inexact"
        return "saved iterator" if self._saves_iterator else "replayed"

    @property
    def _saves_iterator(self) -> bool:
        return self._saveable and self._passes_per_build == 1

    def open(self, epoch: int, step: int = 0) -> Any:
        """Gives the iterator of the epoch: a new pass, or the one that goes on."""
        if self._iterator is None:
            self.next_pass(epoch if self._pass_per_epoch else None)
        return self._iterator

    def next_pass(self, number: int | None = None) -> Any:
        """Begins a new pass and gives its iterator."""
        self._begin(self._pass + 1 if number is None else number)
        return self._iterator

    def _begin(self, number: int, skip: int = 0) -> None:
        self._pass, self._taken = number, skip
        build, before = divmod(number, self._passes_per_build)
        if self._random and self._rebuild and (build != self._build or self._passes_begun > before):
            self._dataset, self._build, self._passes_begun = self._hook(build), build, 0
        while self._passes_per_build > 1 and self._passes_begun < before:
            self._new_iterator(skip=self.steps)  # shuffles draw from where the pass before left them
        self._iterator = self._new_iterator(skip)

    def _new_iterator(self, skip: int) -> Any:
        self._passes_begun += 1
        iterator = iter(self._prepared(self._dataset, self._pass))
        for _ in range(skip):
            next(iterator, None)
        return iterator

    def close_epoch(self) -> None:
        """Ends the pass too, where epochs and passes are the same."""
        if self._pass_per_epoch:
            self._iterator, self._taken = None, 0

    def as_dataset(self) -> tf.data.Dataset:
        """The pipeline as the hook returned it."""
        return self._dataset

    def _prepared(self, dataset: Any, number: int) -> tf.data.Dataset:
        if self._augment is None:
            return dataset
        hook, key = self._augment, self._augment_key

        def augment_batch(index: tf.Tensor, batch: Any) -> Any:
            rows = tf.shape(tf.nest.flatten(batch)[0], out_type=tf.int64)[0]
            numbers = (number * 2**32 + index) * 2**24 + tf.range(rows)
            seeds = tf.stack([tf.fill([rows], tf.constant(key, tf.int64)), numbers], axis=1)
            return tf.vectorized_map(lambda sample: augmented(hook, sample[0], sample[1]), (batch, seeds))

        prepared = dataset.enumerate().map(
            lambda index, batch: augment_batch(index, batch), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        return prepared.prefetch(2)

    def took(self, batches: int) -> None:
        """Notes that so many batches of the pass were trained on."""
        self._taken += batches

    @property
    def goes_on(self) -> bool:
        """Whether an epoch continues with a new pass where the data ends."""
        return self._fixed_steps

    def take(self, source: Any, step: tf.Tensor) -> tf.experimental.Optional:
        """In the graph: the next batch, or an empty optional at the end of the pass."""
        return source.get_next_as_optional()

    def sample_batch(self) -> Any:
        """A first batch, for building the model and for looking at shapes."""
        for batch in self._dataset.take(1):
            return batch
        raise DataError(
            f"dataset: the {self.split} pipeline gives no batch. Expected at least one, got none. "
            f'Look at what `dataset("{self.split}")` returns.'
        )

    def position(self) -> dict[str, Any]:
        """The pass, and the batches of it that were trained on."""
        return {"pass": self._pass, "taken": self._taken}

    def save(self, prefix: Path) -> None:
        """Writes the iterator, with its shuffle buffer, where TensorFlow can."""
        if self._saves_iterator and self._taken:
            tf.train.Checkpoint(iterator=self._iterator).write(str(prefix))

    def restore(self, position: dict[str, Any], prefix: Path) -> None:
        """Goes back to a saved position, without replaying the data where the iterator was saved."""
        number, taken = position["pass"], position["taken"]
        if self._pass_per_epoch and not taken:
            return  # between two epochs: the next one opens a new pass
        self._begin(number, skip=0 if self._saves_iterator else taken)
        if self._saves_iterator and taken:
            tf.train.Checkpoint(iterator=self._iterator).read(str(prefix)).assert_consumed()
        self._taken = taken


def is_random(dataset: tf.data.Dataset) -> bool:
    """Whether two passes through a pipeline may differ: it shuffles, draws random numbers, or runs Python."""
    for node in _nodes(dataset):
        if any(word in type(node).__name__ for word in ("Shuffle", "Random", "Generator", "Sample", "Directed")):
            return True
        for function in getattr(node, "_functions", list)():
            if any(operation.op_def.is_stateful for operation in function.function.graph.get_operations()):
                return True
    return False


def _nodes(dataset: tf.data.Dataset) -> Iterator[tf.data.Dataset]:
    pending = [dataset]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(getattr(node, "_inputs", list)())


def _can_be_saved(dataset: tf.data.Dataset) -> bool:
    """Whether TensorFlow can write an iterator over the pipeline; it refuses stateful operations and Python."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        try:
            tf.train.Checkpoint(iterator=iter(dataset)).write(str(Path(folder) / "probe"))
        except (tf.errors.FailedPreconditionError, tf.errors.UnimplementedError, ValueError) as error:
            logger.debug("the iterator cannot be saved: %s", error)
            return False
    return True


class IndexedFeed:
    """A `keras.utils.PyDataset`: batches are asked for by index, so any place can be begun at."""

    kind = "indexed"

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
        self._first = tf.nest.map_structure(np.asarray, _as_tuple(source[0]))
        self.spec = tf.nest.map_structure(
            lambda leaf: tf.TensorSpec([None, *leaf.shape[1:]], _dtype_of(leaf)), self._first
        )
        self._trained_epoch: int | None = None

    def open(self, epoch: int, step: int = 0) -> Any:
        """Gives an iterator over the batches from `step` on; the PyDataset's `workers` threads fetch them."""
        if self._trained_epoch is not None and self._trained_epoch != epoch:
            self._source.on_epoch_end()
        self._trained_epoch = epoch
        order = np.arange(self._batches)
        if self._shuffle:
            order = np.random.default_rng([derive(self._seed, "order"), epoch]).permutation(self._batches)
        kinds = [spec.dtype for spec in tf.nest.flatten(self.spec)]

        def fetch(index: np.ndarray) -> list[np.ndarray]:
            batch = _as_tuple(self._source[int(index)])
            return [
                np.asarray(leaf, kind.as_numpy_dtype) for leaf, kind in zip(tf.nest.flatten(batch), kinds, strict=True)
            ]

        def batch(index: tf.Tensor) -> Any:
            leaves = tf.numpy_function(fetch, [index], kinds)
            for leaf, spec in zip(leaves, tf.nest.flatten(self.spec), strict=True):
                leaf.set_shape(spec.shape)
            return tf.nest.pack_sequence_as(self.spec, leaves)

        indices = tf.data.Dataset.from_tensor_slices(order[step : self.steps])
        workers = max(1, getattr(self._source, "workers", 1))
        return iter(indices.map(batch, num_parallel_calls=workers, deterministic=True).prefetch(2))

    def take(self, source: Any, step: tf.Tensor) -> Any:
        """In the graph: the next batch."""
        return source.get_next()

    def sample_batch(self) -> Any:
        """A first batch."""
        return tf.nest.map_structure(tf.convert_to_tensor, self._first)

    def as_dataset(self) -> tf.data.Dataset:
        """All batches in their order."""
        return tf.data.Dataset.from_generator(
            lambda: (_as_tuple(self._source[number]) for number in range(self._batches)), output_signature=self.spec
        )

    def close_epoch(self) -> None:
        """Nothing to do: each epoch is opened by its number."""

    def position(self) -> dict[str, Any]:
        """Nothing beyond the epoch and the step that the state holds anyway."""
        return {}

    def save(self, prefix: Path) -> None:
        """Nothing to write."""

    def restore(self, position: dict[str, Any], prefix: Path) -> None:
        """Nothing to read."""


def _as_tuple(batch: Any) -> Any:
    return tuple(batch) if isinstance(batch, list) else batch


def _dtype_of(leaf: np.ndarray) -> tf.DType:
    return tf.as_dtype(keras.config.floatx()) if leaf.dtype == np.float64 else tf.as_dtype(leaf.dtype)
