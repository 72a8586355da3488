"""Whether maps tell of the model at all (Adebayo et al. 2018): they must change where its weights are random."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import keras
import numpy as np


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
        _correlation(_ranks(np.abs(one).ravel()), _ranks(np.abs(other).ravel()))
        for one, other in zip(maps, others, strict=True)
    ]
    return float(np.mean(found))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one - one.mean(), other - other.mean()
    size = np.sqrt(np.sum(one**2) * np.sum(other**2))
    return float(np.sum(one * other) / size) if size else 0.0
