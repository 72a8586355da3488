"""Samples of a split, one at a time, by the names of a served model's inputs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from experiments_manager.settings import Settings
from experiments_manager.training.building import feed_for
from experiments_manager.training.compiling import compiled_model
from experiments_manager.training.errors import DataError
from experiments_manager.training.feed import Feed


def split_samples(
    settings: Settings, inputs: Sequence[str], split: str = "validation"
) -> Iterator[dict[str, np.ndarray]]:
    """Gives the samples of a split, in its order.

    Args:
        settings: The run's.
        inputs: Names of the served model's inputs.
        split: `train`, `validation` or `test`.

    Yields:
        Arrays by input name, each with a batch of one.

    Raises:
        DataError: There is no such split, or nobody can tell which part of `x` goes to which input.
        UserCodeError: A hook raised.
    """
    with contextlib.suppress(RuntimeError):  # the server may need them; too late in a process that used them already
        tf.config.set_visible_devices([], "GPU")
    if settings.has("prepare_datasets"):
        settings.call("prepare_datasets", run=None)
    feed = feed_for(settings, split)
    if feed is None:
        raise DataError(
            f'dataset: there is no {split} split. Expected data for `dataset("{split}")`, got None. '
            "Return the data, name a source with --from, or write a `client` hook.",
            settings.location("dataset"),
        )
    names = _names_of_parts(settings, feed, inputs)
    with settings.active():
        dataset = feed.as_dataset()
        for batch in dataset if feed.steps is None else dataset.take(feed.steps):
            parts = [part.numpy() for part in tf.nest.flatten(_x(batch))]
            for index in range(len(parts[0])):
                yield {name: part[index : index + 1] for name, part in zip(names, parts, strict=True) if name in inputs}


def _x(batch: Any) -> Any:
    return batch[0] if isinstance(batch, tuple) else batch


def _names_of_parts(settings: Settings, feed: Feed, inputs: Sequence[str]) -> Sequence[str]:
    """Finds the name of each tensor in the flattened `x`."""
    x = _x(feed.spec)
    count = len(tf.nest.flatten(x))
    if isinstance(x, dict) and set(inputs) <= set(x):
        return sorted(x)  # the order in which a dictionary is flattened
    if count == len(inputs) == 1:
        return inputs
    if settings.input_names and set(settings.input_names) == set(inputs) and count == len(inputs):
        return settings.input_names
    own = [tensor.name for tensor in getattr(compiled_model(settings, feed), "inputs", None) or []]
    if set(own) == set(inputs) and count == len(own):
        return own
    raise DataError(
        f"dataset: x has {count} parts, and the served model has the inputs {', '.join(inputs)}; nobody can tell which "
        "goes where. Name the parts in a dictionary, set `input_names`, or write a `client` hook.",
        settings.location("dataset"),
    )
