"""Some samples of a split, with what a run's model says of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from experiments_manager.attribution.errors import ExplainError
from experiments_manager.events import Samples
from experiments_manager.export.servable import output_names_of
from experiments_manager.training.feeds.feed import Feed, x_and_y
from experiments_manager.training.setup.experiment import Experiment

_POOL = 8
"""The samples are drawn from the first of the split, about so many times as many as are wanted."""
_LARGEST = 256 * 2**20
"""Bytes from which on no more are read than are wanted."""


def draw_samples(experiment: Experiment, feed: Feed, count: int, seed: int) -> Samples:
    """Draw samples without replacement, the same ones for the same seed, in the order of the split.

    Args:
        experiment: Holds the model, whose weights are in place.
        feed: The split.
        count: How many; all there are, where these are fewer.
        seed: Of the draw.

    Raises:
        ExplainError: The data cannot be read again, is no dense tensors, or the samples differ in shape.
    """
    if feed.kind == "irreproducible" or feed.never_ends:
        raise ExplainError(f"The {feed.split} split is a stream without an end. Name another split by --split.")
    if not all(type(part) is tf.TensorSpec for part in tf.nest.flatten(feed.spec)):
        raise ExplainError("Ragged and sparse inputs cannot be explained. Expected dense tensors.")
    batches, found = [], 0
    dataset = feed.as_dataset()
    for batch in dataset if feed.steps is None else dataset.take(feed.steps):
        batches.append(tf.nest.map_structure(np.asarray, x_and_y(batch)))
        found += len(tf.nest.flatten(batches[-1][0])[0])
        size = sum(part.nbytes for batch in batches for part in tf.nest.flatten(batch))
        if found >= (_POOL * count if size < _LARGEST else count):
            break
    if not found:
        raise ExplainError(f"The {feed.split} split is empty. Name another split by --split.")
    chosen = np.sort(np.random.default_rng(seed).permutation(found)[:count])
    try:
        x, y = tf.nest.map_structure(lambda *parts: np.concatenate(parts)[chosen], *batches)
    except ValueError as error:
        raise ExplainError(
            f"Samples of the {feed.split} split differ in shape, so that they cannot be compared: {error}. "
            "Expected one shape; pad or crop them in `dataset`."
        ) from error
    return Samples(feed.split, x, y, _outputs(experiment, x), {})


def _outputs(experiment: Experiment, x: Any) -> dict[str, np.ndarray]:
    model, size = experiment.model, experiment.settings.batch_size
    spec = tf.nest.map_structure(lambda array: tf.TensorSpec([None, *array.shape[1:]], array.dtype), x)
    traced = tf.function(lambda x: model(x, training=False), input_signature=[spec], autograph=False)
    predict = traced.get_concrete_function()

    def batch(start: int) -> Any:
        return predict(tf.nest.map_structure(lambda array: tf.convert_to_tensor(array[start : start + size]), x))

    parts = [batch(start) for start in range(0, len(tf.nest.flatten(x)[0]), size)]
    flat = [np.concatenate(head) for head in zip(*map(tf.nest.flatten, parts), strict=True)]
    wanted, own = experiment.settings.output_names, output_names_of(model, parts[0])
    names = wanted if wanted and not isinstance(parts[0], dict) else own
    names = names if len(names) == len(flat) else [f"output_{number}" for number in range(len(flat))]
    return dict(zip(names, flat, strict=True))
