"""Weights of classes, which become weights of samples in the compiled step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments_manager.settings import Lazy, Settings
from experiments_manager.settings.problems import shown
from experiments_manager.training.feeds.feed import Feed, Shape
from experiments_manager.training.hook_calls import hook_error
from experiments_manager.training.setup.boundary import at_work

MOST_CLASSES = 10_000_000
"""A larger index is no class, and its table would fill the memory."""


class ClassWeights:
    """A table of weights, in the graph.

    Args:
        weights: Weight of each class by its index; of those that are missing it is 1.
        exchangeable: Whether other weights can be put into the table, for a loop that trains several clients in turn.
        output_rank: Dimensions of the model's output. Targets of as many are one number a class, those of fewer the
            indices of classes, such as label maps. `None`: targets of several columns are one number a class.
    """

    def __init__(
        self, weights: Mapping[int, float] | None, *, exchangeable: bool = False, output_rank: int | None = None
    ) -> None:
        self._output_rank = output_rank
        self.given = None if exchangeable else dict(weights or {})
        """Weight of each class; `None` where clients have theirs."""
        self.variables: list[tf.Variable] = []
        """What it keeps, which is no state of the training."""
        self._table: Any = _table(weights)
        if exchangeable:
            self._table = tf.Variable(self._table, shape=[None], trainable=False, name="class_weights")
            self.variables = [self._table]

    def assign(self, weights: Mapping[int, float] | None) -> None:
        """Weight the samples of the next steps by these."""
        self._table.assign(_table(weights))

    def weigh(self, data: Any) -> Any:
        """In the graph: the batch `(x, y)` or `(x, y, sample_weight)` with the weights of its classes."""
        x, y, *given = data
        labels = tf.cast(self._labels(y), tf.int32)
        table = tf.convert_to_tensor(self._table)
        last = tf.shape(table)[0] - 1
        is_known = (labels >= 0) & (labels <= last)
        weight = tf.where(is_known, tf.gather(table, tf.clip_by_value(labels, 0, last)), 1.0)
        return (x, y, weight * _of_rank(tf.cast(given[0], tf.float32), len(weight.shape))) if given else (x, y, weight)

    def _labels(self, y: tf.Tensor) -> tf.Tensor:
        rank = y.shape.rank
        if rank is None or rank < 2:
            return tf.reshape(y, [-1])
        if y.shape[-1] == 1:
            return tf.squeeze(y, axis=-1)
        return tf.argmax(y, axis=-1) if self._output_rank in (None, rank) else y


def _of_rank(weights: tf.Tensor, rank: int) -> tf.Tensor:
    """Return weights of samples so that they go with those of what each sample has."""
    if weights.shape.rank is None:
        return weights
    if len(weights.shape) > rank:
        return tf.squeeze(weights, axis=-1)
    return tf.reshape(weights, tf.concat([tf.shape(weights), tf.ones([rank - len(weights.shape)], tf.int32)], axis=0))


def output_rank(model: keras.Model) -> int | None:
    """Return how many dimensions the one output of a model has; `None` where it does not tell, or has several."""
    outputs = getattr(model, "outputs", None) or []
    return len(outputs[0].shape) if len(outputs) == 1 else None


def _table(weights: Mapping[int, float] | None) -> tf.Tensor:
    if not weights:
        return tf.ones([1], tf.float32)
    return tf.constant([weights.get(label, 1.0) for label in range(max(weights) + 1)], tf.float32)


def class_weights_of(settings: Settings, train: Feed) -> dict[int, float] | None:
    """Ask the hook for the weight of each class in some training data."""
    if not settings.has("class_weight"):
        return None
    with at_work(settings, "class_weight"):
        weights = settings.resolve("class_weight", train_data=Lazy(train.as_dataset))
    if weights is not None:
        weights = _checked(settings, weights)
    if not isinstance(train.spec, tuple) or len(train.spec) < 2 or tf.nest.is_nested(train.spec[1]):
        text = f"Expected data of the form (x, y) with one array y, got {Shape.of(train.spec).text}."
        raise hook_error(settings, "class_weight", f"{text} Give sample weights as the third part of the data instead.")
    return weights or None


def _checked(settings: Settings, weights: Any) -> dict[int, float]:
    """Return what the hook gave as numbers by numbers."""
    expected = "a dict with a float for the index of each class"
    if not isinstance(weights, Mapping):
        kind = type(weights).__name__
        text = f"Expected {expected}, got {kind}. Write `{{0: 1.0, 1: 2.5}}`, or `dict(enumerate(weights))`."
        raise hook_error(settings, "class_weight", text)
    checked: dict[int, float] = {}
    for label, weight in weights.items():
        is_index = isinstance(label, (int, float, np.number)) and not isinstance(label, bool) and label == int(label)
        if not is_index or label < 0:
            names = list(settings.class_names or ())
            remedy = f"Write {names.index(label)}." if label in names else "Write the index of the class, from 0."
            text = f"Expected {expected}, got the key {shown(label)}. {remedy}"
            raise hook_error(settings, "class_weight", text)
        try:
            number = float("nan") if isinstance(weight, (bool, str)) else float(weight)
        except (TypeError, ValueError):
            number = float("nan")
        if not math.isfinite(number) or number < 0:
            text = f"Expected a finite float of at least 0 for each class, got {shown(weight)} for class {int(label)}."
            raise hook_error(settings, "class_weight", f"{text} Correct it.")
        checked[int(label)] = number
    if checked and max(checked) >= MOST_CLASSES:
        text = f"Expected indices of classes below {MOST_CLASSES}, got {max(checked)}. Correct it."
        raise hook_error(settings, "class_weight", text)
    return checked
