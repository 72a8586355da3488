"""The hook `augment` on samples and on batches, each sample with a seed of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from experiments_manager.training.errors import DataError
from experiments_manager.training.seeds import derive


def augmented(augment: Callable[..., Any], parts: Any, seed: tf.Tensor) -> Any:
    """Apply `augment(x, y, seed)` to one sample; weights pass through.

    Args:
        augment: The hook; returns `(x, y)`, or `x` alone where `y` stays.
        parts: `(x, y)` or `(x, y, sample_weight)` of one sample.
        seed: int64 `[2]`, for `tf.random.stateless_*` and `tf.image.stateless_random_*`.
    """
    x, y, *rest = parts if isinstance(parts, tuple) else (parts, None)
    changed = augment(x, y, seed)
    if isinstance(changed, tuple):
        if len(changed) != 2:
            raise DataError(
                f"augment: it returned {len(changed)} parts. Expected `(x, y)`, or x alone where it "
                "does not ask for y. "
                "Correct what it returns."
            )
        x, y = changed
    else:
        x = changed
    if x is None:
        raise DataError("augment: it returned None. Expected a sample, `x` or `(x, y)`, got None. Add `return`.")
    return (x, y, *rest)


def augmented_batch(augment: Callable[..., Any] | None) -> Callable[..., Any]:
    """Return a function of the graph that calls the hook on each sample of a batch, each with a seed of its own."""

    def of_batch(key: tf.Tensor, index: tf.Tensor, batch: Any) -> Any:
        rows = tf.shape(tf.nest.flatten(batch)[0], out_type=tf.int64)[0]
        seeds = tf.stack([tf.fill([rows], key), index * 2**24 + tf.range(rows)], axis=1)
        return tf.vectorized_map(lambda sample: augmented(augment, sample[0], sample[1]), (batch, seeds), warn=False)

    return of_batch


def augmented_batches(
    dataset: tf.data.Dataset, of_batch: Callable[..., Any], seed: int, number: int, first: int = 0
) -> tf.data.Dataset:
    """Return a pass with its batches augmented.

    Args:
        dataset: The batches.
        of_batch: From `augmented_batch`.
        seed: The run's seed.
        number: Of the pass, which has its own key.
        first: Number of the first batch in its pass.
    """
    key = tf.constant(derive(seed, "augment", number), tf.int64)
    numbers = tf.data.Dataset.range(first, tf.int64.max)  # not `enumerate`, which hides what is below it
    return tf.data.Dataset.zip((numbers, dataset)).map(
        lambda index, batch: of_batch(key, index, batch), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
