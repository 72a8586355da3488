"""Grad-CAM (Selvaraju et al. 2017), and Seg-Grad-CAM for models of masks (Vinogradova, Dibrov and Myers 2020)."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from experiments_manager.attribution.errors import NO_GRADIENT, ExplainError
from experiments_manager.attribution.layer_calls import CONVOLUTIONS, calls_with_places, chosen_features, recorded_calls
from experiments_manager.attribution.scored_output import Explainer, Question, ScoredOutput


def grad_cam(output: ScoredOutput, question: Question, *, layer: str | None = None) -> Explainer:
    """Weigh the channels of a convolution by how much each raises the score on average.

    Args:
        output: The model.
        question: What the inputs look like.
        layer: Name of the layer; by default the last convolution, or where the output has places, the last one of the
            coarsest.

    Returns:
        The method, compiled; its maps are nowhere below zero, and brought to the size of the input.

    Raises:
        ExplainError: The model has no such layer.
    """
    positions = output.positions(question.values)

    def attribute(values: Any, others: Any, classes: Any, regions: Any, baseline: Any) -> Any:
        del baseline  # it needs none
        with tf.GradientTape(watch_accessed_variables=False) as tape, recorded_calls(output.model) as calls:
            tape.watch(values)
            score = output.score(values, others, classes, regions)
        coarse = question.regions.ndim > 1
        seen = calls_with_places(calls, len(positions))
        gradients = tape.gradient(score, [call.result for call in seen])
        # Those of other inputs and other heads have none.
        between = [call for call, gradient in zip(seen, gradients, strict=True) if gradient is not None]
        if not between and any(layer or isinstance(call.layer, CONVOLUTIONS) for call in seen):
            raise ExplainError(NO_GRADIENT.format(method="Grad-CAM"))
        features = chosen_features(between, len(positions), layer, coarse=coarse, output=output.output_layer)
        [gradient, *_] = [found for call, found in zip(seen, gradients, strict=True) if call.result is features]
        features, gradient = tf.cast(features, tf.float32), tf.cast(gradient, tf.float32)
        places = list(range(1, features.shape.rank - 1))
        weights = tf.reduce_mean(gradient, axis=places, keepdims=True)
        return tf.nn.relu(tf.reduce_sum(weights * features, axis=-1))

    compiled = output.compiled(attribute, question)
    return lambda question: resized(output.in_batches(compiled, question), positions)


def resized(maps: np.ndarray, positions: tuple[int, ...]) -> np.ndarray:
    """Bring maps [n, …] to another size, linearly along each axis, the middles of outermost cells at their places."""
    for axis, size in enumerate(positions, start=1):
        given = maps.shape[axis]
        places = np.clip((np.arange(size) + 0.5) * given / size - 0.5, 0, given - 1)
        lower = np.minimum(places.astype(int), max(given - 2, 0))
        upper = np.minimum(lower + 1, given - 1)
        share = (places - lower).reshape(-1, *[1] * (maps.ndim - 1 - axis))
        maps = np.take(maps, lower, axis) * (1 - share) + np.take(maps, upper, axis) * share
    return maps.astype(np.float32)
