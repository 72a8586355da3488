"""What a map is worth: insertion and deletion curves (Petsiuk, Das and Saenko 2018).

Deletion puts the baseline into the positions of an input, those first that a map says matter most; if it is right, the
probability of the class falls at once, and the area below the curve is small. Insertion begins with the baseline and
puts the input back; the area is large.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from experiments_manager.attribution.subject import Question, Subject

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


def curve_meter(subject: Subject, question: Question) -> Callable[[Question, np.ndarray], Curves]:
    """Compile what measures maps [n, …] of a question."""
    positions = subject.positions(question.values)
    count = math.prod(positions)
    numbers = tf.constant(np.rint(np.linspace(0, count, STEPS + 1)), tf.int32)

    def probabilities(values: Any, others: Any, classes: Any, regions: Any, baseline: Any, ranks: Any) -> Any:
        def at(step: tf.Tensor) -> tf.Tensor:
            first = subject.with_channel(ranks < numbers[step])
            deleted, inserted = tf.where(first, baseline, values), tf.where(first, values, baseline)
            return tf.stack([subject.probability(x, others, classes, regions) for x in (deleted, inserted)])

        found = tf.map_fn(at, tf.range(STEPS + 1), fn_output_signature=tf.float32, parallel_iterations=1)
        return tf.transpose(found, [2, 1, 0])

    compiled = subject.compiled(probabilities, question, tf.TensorSpec([None, *positions], tf.int32))

    def measure(question: Question, maps: np.ndarray) -> Curves:
        deletion, insertion = subject.in_batches(compiled, question, _ranks(maps)).mean(axis=0)
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
