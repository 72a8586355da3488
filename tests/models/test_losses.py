"""The pinball loss is that of NumPy, and its minimum is the quantile."""

import keras
import numpy as np
import pytest

from experiments_manager.models.losses import QuantileLoss


def test_it_equals_its_definition():
    true, forecast = np.array([[1.0, 2.0]]), np.array([[[0.0, 3.0], [2.5, 1.0]]])
    missed = true[..., None] - forecast
    expected = np.mean(np.maximum([0.1, 0.9] * missed, [-0.9, -0.1] * missed))
    assert float(QuantileLoss([0.1, 0.9])(true, forecast)) == pytest.approx(expected, rel=1e-6)


def test_targets_may_be_a_column():
    generator = np.random.default_rng(0)
    true, forecast = generator.normal(size=(4, 1)), generator.normal(size=(4, 3))
    loss = QuantileLoss([0.1, 0.5, 0.9])
    assert float(loss(true, forecast)) == pytest.approx(float(loss(true[:, 0], forecast)))


@pytest.mark.parametrize(
    ("true", "forecast"),
    [((4, 3), (4, 3, 3)), ((4, 3), (4, 3)), ((4, 1), (4, 3, 2)), ((4,), (4, 1)), ((4,), (4, 2, 2))],
)
def test_shapes_that_would_be_spread_over_each_other_are_refused(true, forecast):
    with pytest.raises(ValueError, match="do not fit a forecast of shape"):
        QuantileLoss([0.1, 0.9])(np.zeros(true), np.zeros(forecast))


def test_the_quantile_minimises_it():
    drawn = np.random.default_rng(0).normal(size=(5000, 1))
    loss = QuantileLoss([0.9])
    losses = [float(loss(drawn, np.full((5000, 1, 1), level))) for level in (0.8, 1.28, 1.8)]
    assert min(losses) == losses[1]


def test_it_is_saved_and_loaded():
    loss = keras.losses.deserialize(keras.losses.serialize(QuantileLoss([0.2, 0.8])))
    assert loss.quantiles == [0.2, 0.8]


@pytest.mark.parametrize("levels", [[], [0.5, 1.0], [-0.1]])
def test_levels_that_are_none_are_refused(levels):
    with pytest.raises(ValueError, match="between 0 and 1"):
        QuantileLoss(levels)
