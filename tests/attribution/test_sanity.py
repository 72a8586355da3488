"""Maps of the model are compared with those of random weights."""

import keras
import numpy as np
import pytest

from experiments_manager.attribution.sanity import random_weights, rank_correlation


def test_equal_maps_correlate_whatever_their_scale_and_sign():
    maps = np.random.default_rng(0).normal(size=(3, 4, 5))
    assert rank_correlation(maps, -10 * maps) == pytest.approx(1)
    assert rank_correlation(np.abs(maps), -np.exp(-np.abs(maps))) == pytest.approx(-1)


def test_independent_maps_hardly_correlate_and_constant_ones_not_at_all():
    one, other = np.random.default_rng(0).normal(size=(2, 5, 400))
    assert abs(rank_correlation(one, other)) < 0.1
    assert rank_correlation(one, np.ones_like(one)) == 0


def test_equal_sizes_share_the_mean_of_their_ranks():
    # Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: by hand 4.5 / sqrt(4.5 * 5).
    assert rank_correlation(np.array([[1, 2, 2, 3]]), np.array([[1, 2, 3, 4]])) == pytest.approx(4.5 / 22.5**0.5)


def test_weights_are_shuffled_and_put_back_also_after_an_error():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5), keras.layers.BatchNormalization()])
    before = [np.array(weight.numpy()) for weight in model.weights]
    with pytest.raises(ZeroDivisionError), random_weights(model, 0):
        kernel = np.array(model.weights[0].numpy())
        assert not np.array_equal(kernel, before[0])
        assert np.array_equal(np.sort(kernel.ravel()), np.sort(before[0].ravel()))
        raise ZeroDivisionError
    assert all(np.array_equal(weight, kept) for weight, kept in zip(model.weights, before, strict=True))
