"""Exponential moving averages of the weights: what is validated, exported and served."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf


class Averages:
    """A second copy of the trainable weights that follows the first one slowly.

    After training step t (counted from 0), each average moves by `(1 - m) * (weight - average)` with
    `m = min(momentum, (1 + t) / (10 + t))`: the ramp of `tf.train.ExponentialMovingAverage`, so that a run of a few
    hundred steps is not dominated by its first weights (Polyak and Juditsky, 1992, for the idea of averaging).

    Args:
        variables: The trainable variables of the built model.
        momentum: The final momentum, in `(0, 1)`.
    """

    def __init__(self, variables: Sequence[keras.Variable], momentum: float) -> None:
        self.momentum = momentum
        self.weights = [variable.value for variable in variables]
        # Made like the weights, so that under a strategy each device holds its own copy of both.
        self.averages = [
            tf.Variable(weight, trainable=False, name=f"average_{number}") for number, weight in enumerate(self.weights)
        ]
        self._swap = tf.function(self._exchange, autograph=False).get_concrete_function()
        self._distance: Callable[[], tf.Tensor] | None = None

    def update(self, step: tf.Tensor) -> None:
        """In the graph, in cross-replica context: moves the averages after training step `step`."""
        t = tf.cast(step, tf.float32)
        rate = 1.0 - tf.minimum(tf.constant(self.momentum, tf.float32), (1.0 + t) / (10.0 + t))
        strategy = tf.distribute.get_strategy()

        def move(average: Any, weight: Any) -> None:
            average.assign_sub(tf.cast(rate, average.dtype) * (average - weight))

        for average, weight in zip(self.averages, self.weights, strict=True):
            strategy.extended.update(average, move, args=(weight,))

    def follow(self, first: int, steps: int) -> None:
        """Move the averages as in `steps` updates from step `first` on, all of them with the weights of now."""
        kept = math.prod(min(self.momentum, (1.0 + t) / (10.0 + t)) for t in range(first, first + steps))
        for average, weight in zip(self.averages, self.weights, strict=True):
            average.assign(weight + tf.cast(kept, average.dtype) * (average - weight))

    def assign(self, values: Sequence[Any]) -> None:
        """Put these values in the place of the averages."""
        for average, value in zip(self.averages, values, strict=True):
            average.assign(value)

    def distance(self) -> float:
        """Return how far the averages are from the weights, relative to these: `‖w - average‖ / ‖w‖`."""
        if not self.weights:
            return 0.0
        if self._distance is None:  # traced where somebody asks
            self._distance = tf.function(self.relative_distance, autograph=False).get_concrete_function()
        return float(self._distance())

    def relative_distance(self) -> tf.Tensor:
        """In the graph: that distance."""
        weights = [tf.convert_to_tensor(weight) for weight in self.weights]
        apart = [weight - tf.convert_to_tensor(average) for weight, average in zip(weights, self.averages, strict=True)]
        return _norm(apart) / _norm(weights)

    def _exchange(self) -> None:
        held = [tf.identity(weight) for weight in self.weights]
        for weight, average in zip(self.weights, self.averages, strict=True):
            weight.assign(average)
        for average, value in zip(self.averages, held, strict=True):
            average.assign(value)

    @contextlib.contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Inside, the model's weights are the averages; the exact weights are back afterwards, whatever happens."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @contextlib.contextmanager
    def swapped_in_graph(self) -> Iterator[None]:
        """While a graph is made: what is made inside sees the averages as the model's weights."""
        self._exchange()
        yield
        self._exchange()


def _norm(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Euclidean norm over all of them."""
    return tf.sqrt(2.0 * tf.add_n([tf.cast(tf.nn.l2_loss(tensor), tf.float32) for tensor in tensors]))
