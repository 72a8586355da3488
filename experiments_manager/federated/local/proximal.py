"""The proximal term of FedProx: local training is held near the weights that it began with.

Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020, equation 2.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class ProximalTerm:
    """Adds `mu / 2 · ‖w - w₀‖²` over the trainable weights to a model's loss.

    Args:
        model: Built and compiled, its training step not traced yet.
    """

    def __init__(self, model: keras.Model) -> None:
        self._weights = [variable.value for variable in model.trainable_variables]
        self._centre = [tf.Variable(weight, trainable=False, name="proximal_centre") for weight in self._weights]
        self._mu = tf.Variable(0.0, trainable=False, name="proximal_mu")
        self.variables = [*self._centre, self._mu]
        """What it keeps, which is set before each training."""
        plain = model.compute_loss

        def compute_loss(*arguments: Any, **named: Any) -> tf.Tensor:
            loss = plain(*arguments, **named)
            return loss + tf.cast(self._value(), loss.dtype)

        model.compute_loss = compute_loss

    def begin(self, mu: float) -> None:
        """Hold training near the weights as they are now."""
        self._mu.assign(mu)
        for centre, weight in zip(self._centre, self._weights, strict=True):
            centre.assign(weight)

    def _value(self) -> tf.Tensor:
        squares = [
            tf.reduce_sum(tf.square(tf.cast(weight - centre, tf.float32)))
            for weight, centre in zip(self._weights, self._centre, strict=True)
        ]
        return 0.5 * self._mu * tf.add_n(squares)
