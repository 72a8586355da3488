"""Insertion and deletion tell a right map from a wrong one."""

import keras
import numpy as np
import pytest

from experiments_manager.attribution.curves import STEPS, curve_meter, random_order
from experiments_manager.attribution.subject import Question, Subject


@pytest.fixture(scope="module")
def summing():
    """The probability of class 1 is the share of the lit positions among the first five of twenty."""
    x = keras.Input((20,))
    layer = keras.layers.Dense(1, activation="linear")
    model = keras.Model(x, layer(x))
    layer.set_weights([np.array([0.2] * 5 + [0.0] * 15)[:, np.newaxis], np.zeros(1)])
    values = np.ones((3, 20), np.float32)
    question = Question(values, [], np.ones(3, np.int32), np.ones(3, np.float32), np.zeros_like(values))
    subject = Subject(model, values, 0, 0, False, "probabilities", batch=2)
    return question, curve_meter(subject, question)


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
    measure = curve_meter(Subject(model, values, 0, 0, True), question)
    curves = measure(question, np.zeros((1, 2, 2)))
    np.testing.assert_allclose(curves.deletion[[0, 5, 10, 15, 20]], [1, 0.75, 0.5, 0.25, 0], atol=1e-6)
