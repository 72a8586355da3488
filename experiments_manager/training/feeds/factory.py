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

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from experiments_manager.training.feeds import array_feed, indexed_feed, stream_feed
from experiments_manager.training.feeds.feed import Feed
from experiments_manager.training.seeds import host_random_state, restore_host_random_state


def make_feed(
    build: Callable[[int], Any],
    *,
    split: str,
    batch_size: int,
    seed: int,
    steps_per_epoch: int | None = None,
    likely_steps: int | None = None,
    shuffle: bool = False,
    augment: Callable[..., Any] | None = None,
    rebuild: bool = True,
    varies: bool = False,
    allow_nan: bool = False,
) -> Feed | None:
    """Make the feed that suits what the `dataset` hook returns.

    Args:
        build: Calls the hook for a pass, a number from 0, after reseeding, and returns its result.
        split: `train`, `validation` or `test`, for messages.
        batch_size: Samples in a batch; for arrays alone, everything else comes in batches.
        seed: The run's seed.
        steps_per_epoch: Batches in an epoch; needed where the data never ends.
        likely_steps: The same, to be used only where the data cannot tell its length.
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
    data = build(0)
    common = {"split": split, "seed": seed, "steps_per_epoch": steps_per_epoch, "augment": augment}
    if data is None:
        return None
    if isinstance(data, tf.data.Dataset):
        return stream_feed.StreamFeed(data, build, likely_steps=likely_steps, rebuild=rebuild, varies=varies, **common)
    if isinstance(data, keras.utils.PyDataset):
        return indexed_feed.IndexedFeed(data, shuffle=shuffle, **common)
    arrays = array_feed.as_arrays(data, split, allow_nan=allow_nan)
    return _array_feed(arrays, batch_size=batch_size, shuffle=shuffle, **common)


def _array_feed(arrays: Any, *, augment: Callable[..., Any] | None, **options: Any) -> Feed:
    if augment is None:
        return array_feed.ArrayFeed(arrays, **options)
    return array_feed.AugmentedFeed(arrays, augment=augment, **options)


def first_batch(validation: Feed | None, train: Feed) -> Any:
    """Read a batch of the validation data, or of the training data where there is none that can be read in between.

    The random generators of Python and NumPy are left as they were.
    """
    feed = train if validation is None or validation.kind == "irreproducible" else validation
    state = host_random_state()
    try:
        return feed.sample_batch()
    finally:
        restore_host_random_state(state)
