"""Weights of classes, which become weights of samples in the compiled step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from experiments_manager.settings import Lazy, Settings
from experiments_manager.training.feeds.feed import Feed, Shape
from experiments_manager.training.setup.hooks import hook_error


class ClassWeights:
    """A table of weights, in the graph.

    Args:
        weights: Weight of each class by its index; of those that are missing it is 1.
        exchangeable: Whether other weights can be put into the table, for a loop that trains several clients in turn.
    """

    def __init__(self, weights: Mapping[int, float] | None, *, exchangeable: bool = False) -> None:
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
        x, y, *weights = data
        labels = (
            tf.argmax(y, axis=-1) if y.shape.rank and y.shape.rank > 1 and y.shape[-1] != 1 else tf.reshape(y, [-1])
        )
        labels = tf.cast(labels, tf.int32)
        table = tf.convert_to_tensor(self._table)
        size = tf.shape(table)[0]
        weight = tf.where(labels < size, tf.gather(table, tf.minimum(labels, size - 1)), 1.0)
        return (x, y, weight * tf.cast(weights[0], tf.float32)) if weights else (x, y, weight)


def _table(weights: Mapping[int, float] | None) -> tf.Tensor:
    if not weights:
        return tf.ones([1], tf.float32)
    return tf.constant([weights.get(label, 1.0) for label in range(max(weights) + 1)], tf.float32)


def class_weights_of(settings: Settings, train: Feed) -> dict[int, float] | None:
    """Ask the hook for the weight of each class in some training data."""
    if not settings.has("class_weight"):
        return None
    weights = settings.resolve("class_weight", train_data=Lazy(train.as_dataset))
    if not isinstance(train.spec, tuple) or len(train.spec) < 2 or tf.nest.is_nested(train.spec[1]):
        text = f"Expected data of the form (x, y) with one array y, got {Shape.of(train.spec).text}."
        raise hook_error(settings, "class_weight", f"{text} Give sample weights as the third part of the data instead.")
    return {int(label): float(weight) for label, weight in weights.items()} if weights else None
