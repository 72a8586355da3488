"""What a map is worth: insertion and deletion curves, and whether it tells of the model at all.

Curves (Petsiuk, Das and Saenko 2018): deletion puts the baseline into the positions of an input, those first that a map
says matter most; if it is right, the probability of the class falls at once, and the area below the curve is small.
Insertion begins with the baseline and puts the input back; the area is large. A map that tells of the model changes
where its weights are random (Adebayo et al. 2018).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments_manager.attribution.scored_output import Question, ScoredOutput

STEPS = 20


@dataclasses.dataclass(frozen=True)
class Curves:
    """Probabilities of the class, means over the samples, at `STEPS` + 1 equal shares of the positions from 0 to 1."""

    deletion: np.ndarray
    insertion: np.ndarray

    @property
    def deletion_area(self) -> float:
        """The area below the deletion curve; smaller is better."""
        return float(np.trapezoid(self.deletion, dx=1 / STEPS))

    @property
    def insertion_area(self) -> float:
        """The area below the insertion curve; larger is better."""
        return float(np.trapezoid(self.insertion, dx=1 / STEPS))

    @property
    def worth(self) -> float:
        """Insertion less deletion; a map that knows nothing has about that of a random order."""
        return self.insertion_area - self.deletion_area


def curve_meter(output: ScoredOutput, question: Question) -> Callable[[Question, np.ndarray], Curves]:
    """Compile what measures maps [n, …] of a question."""
    positions = output.positions(question.values)
    count = math.prod(positions)
    numbers = tf.constant(np.rint(np.linspace(0, count, STEPS + 1)), tf.int32)

    def probabilities(values: Any, others: Any, classes: Any, regions: Any, baseline: Any, ranks: Any) -> Any:
        def at(step: tf.Tensor) -> tf.Tensor:
            first = output.with_channel(ranks < numbers[step])
            deleted, inserted = tf.where(first, baseline, values), tf.where(first, values, baseline)
            return tf.stack([output.probability(x, others, classes, regions) for x in (deleted, inserted)])

        found = tf.map_fn(at, tf.range(STEPS + 1), fn_output_signature=tf.float32, parallel_iterations=1)
        return tf.transpose(found, [2, 1, 0])

    compiled = output.compiled(probabilities, question, tf.TensorSpec([None, *positions], tf.int32))

    def measure(question: Question, maps: np.ndarray) -> Curves:
        deletion, insertion = output.in_batches(compiled, question, _ranks(maps)).mean(axis=0)
        return Curves(deletion, insertion)

    return measure


def _ranks(maps: np.ndarray) -> np.ndarray:
    """Rank the positions of each map, 0 for the most important one; of equals the first."""
    order = np.argsort(-maps.reshape(len(maps), -1), axis=1, kind="stable")
    ranks = np.empty(order.shape, np.int32)
    np.put_along_axis(ranks, order, np.arange(order.shape[1], dtype=np.int32)[np.newaxis], axis=1)
    return ranks.reshape(maps.shape)


def random_order(maps: np.ndarray, seed: int) -> np.ndarray:
    """Return maps of the same shape that know nothing."""
    return np.random.default_rng(seed).uniform(size=maps.shape).astype(np.float32)


@contextlib.contextmanager
def random_weights(model: keras.Model, seed: int) -> Iterator[None]:
    """Shuffle the numbers of each weight of a model, so that it is as wide as before and knows nothing."""
    generator = np.random.default_rng(seed)
    kept = [(weight, np.array(weight.numpy())) for weight in model.weights if "float" in str(weight.dtype)]
    try:
        for weight, value in kept:
            weight.assign(generator.permuted(value.reshape(-1)).reshape(value.shape))
        yield
    finally:
        for weight, value in kept:
            weight.assign(value)


def rank_correlation(maps: np.ndarray, others: np.ndarray) -> float:
    """Correlate maps [n, …] with others by the ranks of their sizes (Spearman): the mean over the samples, -1 to 1.

    Positions of equal size share the mean of their ranks. A map of one size throughout correlates with nothing, 0.
    """
    found = [
        _correlation(_fractional_ranks(np.abs(one).ravel()), _fractional_ranks(np.abs(other).ravel()))
        for one, other in zip(maps, others, strict=True)
    ]
    return float(np.mean(found))


def _fractional_ranks(values: np.ndarray) -> np.ndarray:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one - one.mean(), other - other.mean()
    size = np.sqrt(np.sum(one**2) * np.sum(other**2))
    return float(np.sum(one * other) / size) if size else 0.0
