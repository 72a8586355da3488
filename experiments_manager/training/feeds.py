"""Where batches come from, and what is needed to find the same place in the data again.

A feed gives the compiled loop a *source* for an epoch (a tensor with the order of the samples, or an iterator) and
knows its position in plain numbers. `make_feed` picks the kind from what the `dataset` hook returned:

============================  ==============================================================================
the hook returned             the feed and the position in it
============================  ==============================================================================
arrays                        `ArrayFeed`: batched and shuffled inside the graph; two integers, epoch and step
`keras.utils.PyDataset`       `IndexedFeed`: the engine asks for batches by index; two integers
`tf.data.Dataset`             `StreamFeed`: built again for each pass after reseeding; pass and iterator
============================  ==============================================================================
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from experiments_manager.training.errors import DataError
from experiments_manager.training.seeds import derive

HOST_BYTES = 256 * 2**20
"""Arrays larger than this stay in the host's memory where there is a GPU, and are copied batch by batch."""


class Feed(Protocol):
    """What the loop asks of a source of batches."""

    split: str
    kind: str
    """What the run's manifest says of the position: `arrays`, `indexed`, `saved iterator`, `replayed`, `inexact`."""
    steps: int | None
    """Batches in an epoch; `None` where that shows only at its end."""
    spec: Any
    """Nested `tf.TensorSpec` of one batch."""

    def open(self, epoch: int, step: int = 0) -> Any:
        """Gives the source for `epoch` (counted from 0), placed before its batch `step`."""

    def take(self, source: Any, step: tf.Tensor) -> tf.experimental.Optional | Any:
        """In the graph: the next batch."""

    def close_epoch(self) -> None:
        """Notes that the epoch is over."""

    def as_dataset(self) -> tf.data.Dataset:
        """The data in batches, for hooks that want to look at it."""

    def sample_batch(self) -> Any:
        """A first batch, for building the model and for looking at shapes."""

    def position(self) -> dict[str, Any]:
        """Plain numbers that `restore` takes."""

    def save(self, prefix: Path) -> None:
        """Writes what does not fit in plain numbers (an iterator's buffers) to files that begin with `prefix`."""

    def restore(self, position: dict[str, Any], prefix: Path) -> None:
        """Goes back to a saved position; the next `open` continues there."""


def make_feed(
    build: Callable[[int], Any],
    *,
    split: str,
    batch_size: int,
    seed: int,
    steps_per_epoch: int | None = None,
    shuffle: bool = False,
    augment: Callable[..., Any] | None = None,
    rebuild: bool = True,
    varies: bool = False,
    allow_nan: bool = False,
) -> Feed | None:
    """Makes the feed that suits what the `dataset` hook returns.

    Args:
        build: Calls the hook for a pass, a number from 0, after reseeding, and returns its result.
        split: `train`, `validation` or `test`, for messages.
        batch_size: Samples in a batch; for arrays alone, everything else comes in batches.
        seed: The run's seed.
        steps_per_epoch: Batches in an epoch; needed where the data never ends.
        shuffle: Whether arrays and indexed batches come in a new order each epoch.
        augment: Hook `augment(x, y, seed)` to apply to each sample, or `None`.
        rebuild: Whether a pipeline whose passes differ is built again for each pass.
        varies: Whether the hook looks at the number of the pass, so that each pass must be built for itself.
        allow_nan: Whether arrays may hold NaN.

    Returns:
        The feed, or `None` where the hook returned `None` (no such split).

    Raises:
        DataError: If the data is empty, ragged in length, holds NaN, or is of a kind that cannot be fed.
    """
    from experiments_manager.training import array_feed, stream_feed

    data = build(0)
    if data is None:
        return None
    if isinstance(data, tf.data.Dataset):
        return stream_feed.StreamFeed(
            data,
            build,
            split=split,
            seed=seed,
            steps_per_epoch=steps_per_epoch,
            augment=augment,
            rebuild=rebuild,
            varies=varies,
        )
    if isinstance(data, keras.utils.PyDataset):
        return stream_feed.IndexedFeed(
            data, split=split, seed=seed, shuffle=shuffle, steps_per_epoch=steps_per_epoch, augment=augment
        )
    arrays = array_feed.as_arrays(data, split, allow_nan=allow_nan)
    make = array_feed.ArrayFeed if augment is None else array_feed.AugmentedFeed
    options = {"augment": augment} if augment is not None else {}
    return make(
        arrays,
        split=split,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        steps_per_epoch=steps_per_epoch,
        **options,
    )


@dataclasses.dataclass(frozen=True)
class Shape:
    """How a batch looks, for messages."""

    text: str

    @classmethod
    def of(cls, batch: Any) -> Shape:
        """Describes a batch or its spec, e.g. `x (32, 28, 28, 1) float32, y (32,) int64`."""
        parts = batch if isinstance(batch, tuple) else (batch,)
        names = ("x", "y", "sample_weight")
        return cls(", ".join(f"{name} {_describe(part)}" for name, part in zip(names, parts, strict=False)))


def _describe(part: Any) -> str:
    if isinstance(part, dict):
        return "{" + ", ".join(f"{key}: {_describe(value)}" for key, value in part.items()) + "}"
    if isinstance(part, list | tuple):
        return "[" + ", ".join(map(_describe, part)) + "]"
    if part is None:
        return "none"
    shape = tuple(part.shape) if part.shape.rank is not None else "of unknown rank"
    return f"{shape} {part.dtype.name}"


def epoch_order(samples: int, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """In the graph: a permutation of `range(samples)` that follows from `(seed, epoch)` alone; int32 or int64 `[n]`."""
    kind = tf.int32 if samples < np.iinfo(np.int32).max else tf.int64
    key = tf.stack([tf.constant(derive(seed, "order"), tf.int32), tf.cast(epoch, tf.int32)])
    return tf.random.experimental.stateless_shuffle(tf.range(samples, dtype=kind), seed=key)


def require_batches(steps: int | None, split: str) -> None:
    """Raises `DataError` where there is nothing to feed."""
    if steps == 0:
        raise DataError(
            f"dataset: the {split} split is empty. Expected at least one sample, got none. "
            f'Look at what `dataset("{split}")` returns.'
        )
