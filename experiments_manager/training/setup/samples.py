"""Samples of a split, one at a time, by the names of a served model's inputs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from experiments_manager.export.servable import input_names_of
from experiments_manager.settings import Settings
from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds.feed import Feed, x_and_y
from experiments_manager.training.setup.compilation import compiled_model
from experiments_manager.training.setup.datasets import feed_for


def split_samples(
    settings: Settings, inputs: Sequence[str], split: str = "validation"
) -> Iterator[dict[str, np.ndarray]]:
    """Return the samples of a split, in its order.

    Args:
        settings: The run's.
        inputs: Names of the served model's inputs.
        split: `train`, `validation` or `test`.

    Yields:
        Arrays by input name, each with a batch of one.

    Raises:
        DataError: The split is not found, or it is not known which part of `x` goes to which input.
        UserCodeError: A hook raised.
    """
    with contextlib.suppress(RuntimeError):  # the server may need them; too late in a process that used them already
        tf.config.set_visible_devices([], "GPU")
    if settings.has("prepare_datasets"):
        settings.call("prepare_datasets", run=None)
    feed = feed_for(settings, split, follow=False)
    if feed is None:
        raise DataError(
            f'dataset: there is no {split} split. Expected data for `dataset("{split}")`, got None. '
            "Return the data, name a source with --from, or write a `client` hook.",
            settings.location("dataset"),
        )
    names = _names_of_parts(settings, feed, split, inputs)
    with settings.active():
        dataset = feed.as_dataset()
        for batch in dataset if feed.steps is None else dataset.take(feed.steps):
            parts = [part.numpy() for part in tf.nest.flatten(x_and_y(batch)[0])]
            for index in range(len(parts[0])):
                yield {name: part[index : index + 1] for name, part in zip(names, parts, strict=True) if name in inputs}


def _names_of_parts(settings: Settings, feed: Feed, split: str, inputs: Sequence[str]) -> Sequence[str]:
    """Find the name of each tensor in the flattened `x`: its key in a dictionary, else that of its place."""
    x, _ = x_and_y(feed.spec)
    parts = len(tf.nest.flatten(x))
    keys = sorted(x) if isinstance(x, dict) and len(x) == parts else []
    if keys and set(inputs) <= set(keys):
        return keys  # a dictionary is flattened in this order
    if parts == len(inputs) == 1:
        return inputs
    if parts == len(inputs) and set(settings.input_names or ()) == set(inputs):
        return settings.input_names
    if parts == len(inputs) and not keys:
        names = input_names_of(compiled_model(settings, feed), x)
        if set(names) == set(inputs):
            return names
    given = f"the parts {', '.join(map(str, keys))}" if keys else "1 part" if parts == 1 else f"{parts} parts"
    raise DataError(
        f"dataset: x of the {split} split does not fit the served model. Expected its inputs {', '.join(inputs)}, got "
        f"{given}. Give x as a dictionary by these names or as a tuple in the order of the model's inputs, set "
        "`input_names`, or write a `client` hook.",
        settings.location("dataset"),
    )
