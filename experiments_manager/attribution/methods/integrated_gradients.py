"""Integrated gradients (Sundararajan, Taly and Yan 2017)."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from experiments_manager.attribution.errors import NO_GRADIENT, ExplainError
from experiments_manager.attribution.scored_output import Explainer, Question, ScoredOutput


def integrated_gradients(output: ScoredOutput, question: Question, *, steps: int = 32) -> Explainer:
    """Integrate the gradient of the score on the straight way from the baseline to the input.

    A map adds up to the difference of the scores of input and baseline (completeness), up to the error of the
    integration by Gauss and Legendre.

    Args:
        output: The model.
        question: What the inputs look like.
        steps: Points of the integration; memory holds one of them at a time.

    Returns:
        The method, compiled.

    Raises:
        ExplainError: The score has no gradient.
    """
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    nodes, weights = tf.constant((nodes + 1) / 2, tf.float32), tf.constant(weights / 2, tf.float32)

    def attribute(values: Any, others: Any, classes: Any, regions: Any, baseline: Any) -> Any:
        way = tf.cast(values - baseline, tf.float32)

        def step(number: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            point = tf.cast(tf.cast(baseline, tf.float32) + nodes[number] * way, values.dtype)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(point)
                score = output.score(point, others, classes, regions)
            gradient = tape.gradient(score, point)
            if gradient is None:
                raise ExplainError(NO_GRADIENT.format(method="integrated gradients"))
            return number + 1, total + weights[number] * tf.cast(gradient, tf.float32)

        _, total = tf.while_loop(lambda number, _: number < steps, step, (0, tf.zeros_like(way)), parallel_iterations=1)
        return output.as_map(total * way)

    compiled = output.compiled(attribute, question)
    return lambda question: output.in_batches(compiled, question)
