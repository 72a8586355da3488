"""Insertion and deletion tell a right map from a wrong one."""

import keras
import numpy as np
import pytest

from experiments_manager.attribution.map_quality import (
    STEPS,
    curve_meter,
    random_order,
    random_weights,
    rank_correlation,
)
from experiments_manager.attribution.scored_output import Question, ScoredOutput


@pytest.fixture(scope="module")
def summing():
    """The probability of class 1 is the share of the lit positions among the first five of twenty."""
    x = keras.Input((20,))
    layer = keras.layers.Dense(1, activation="linear")
    model = keras.Model(x, layer(x))
    layer.set_weights([np.array([0.2] * 5 + [0.0] * 15)[:, np.newaxis], np.zeros(1)])
    values = np.ones((3, 20), np.float32)
    question = Question(values, [], np.ones(3, np.int32), np.ones(3, np.float32), np.zeros_like(values))
    output = ScoredOutput(model, values, 0, 0, False, "probabilities", batch=2)
    return question, curve_meter(output, question)


def test_the_right_map_takes_the_probability_away_at_once_and_brings_it_back_at_once(summing):
    question, measure = summing
    curves = measure(question, np.tile(-np.arange(20.0), (3, 1)))
    assert len(curves.deletion) == STEPS + 1 == 21
    np.testing.assert_allclose(curves.deletion[:7], [1, 0.8, 0.6, 0.4, 0.2, 0, 0], atol=1e-6)
    np.testing.assert_allclose(curves.insertion, 1 - curves.deletion, atol=1e-6)
    assert curves.deletion_area == pytest.approx(0.125, abs=1e-6)  # a triangle of height 1 over a quarter
    assert curves.worth == pytest.approx(0.75, abs=1e-6)


def test_the_reverse_of_the_right_map_is_worth_as_much_less(summing):
    question, measure = summing
    assert measure(question, np.tile(np.arange(20.0), (3, 1))).worth == pytest.approx(-0.75, abs=1e-6)


def test_a_random_order_is_worth_about_nothing_and_the_same_for_the_same_seed(summing):
    question, measure = summing
    maps = random_order(question.values, 3)
    assert abs(measure(question, maps).worth) < 0.35
    assert np.array_equal(maps, random_order(question.values, 3))


def test_positions_are_taken_with_all_their_channels():
    x = keras.Input((2, 2, 2))
    layer = keras.layers.Dense(1)
    model = keras.Model(x, layer(keras.layers.Flatten()(x)))
    layer.set_weights([np.full((8, 1), 0.125), np.zeros(1)])
    values = np.ones((1, 2, 2, 2), np.float32)
    question = Question(values, [], np.ones(1, np.int32), np.ones(1, np.float32), np.zeros_like(values))
    measure = curve_meter(ScoredOutput(model, values, 0, 0, True), question)
    curves = measure(question, np.zeros((1, 2, 2)))
    np.testing.assert_allclose(curves.deletion[[0, 5, 10, 15, 20]], [1, 0.75, 0.5, 0.25, 0], atol=1e-6)


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
