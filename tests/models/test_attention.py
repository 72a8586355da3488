"""Attention over channels and places."""

import keras
import numpy as np
import pytest

from experiments_manager.models.attention import atrous_pyramid, dual_attention, spatial_attention, squeeze_excitation

SHAPES = [(12, 8), (6, 4, 8), (4, 4, 2, 8)]


def answered(part, shape):
    x = keras.Input(shape)
    model = keras.Model(x, part(x))
    values = np.random.default_rng(0).normal(size=(3, *shape)).astype("float32")
    return values, model(values).numpy()


@pytest.mark.parametrize("shape", SHAPES)
def test_channels_are_weighed_alike_at_all_places(shape):
    values, weighed = answered(lambda x: squeeze_excitation(x, reduction=2), shape)
    weights = (weighed / values).reshape(3, -1, 8)
    np.testing.assert_allclose(weights, np.broadcast_to(weights[:, :1], weights.shape), rtol=1e-3)
    assert (weights > 0).all() and (weights < 1).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_places_get_a_weight_each(shape):
    _, weights = answered(spatial_attention, shape)
    assert weights.shape == (3, *shape[:-1], 1)
    assert (weights > 0).all() and (weights < 1).all()
    assert np.ptp(weights) > 0


@pytest.mark.parametrize("shape", SHAPES)
def test_both_weigh_together(shape):
    values, weighed = answered(dual_attention, shape)
    assert weighed.shape == values.shape
    assert (np.abs(weighed) < 2 * np.abs(values)).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_pyramid_sees_several_widths(shape):
    _, seen = answered(lambda x: atrous_pyramid(x, 5, rates=(1, 2)), shape)
    assert seen.shape == (3, *shape[:-1], 5)


def test_a_pyramid_knows_what_is_everywhere():
    keras.utils.set_random_seed(0)  # a few of its 32 units answer to light, whatever the seed
    x = keras.Input((None, None, 2))
    model = keras.Model(x, atrous_pyramid(x, 32, rates=(1, 2)))
    dark = np.zeros((1, 20, 20, 2), "float32")
    lit = dark.copy()
    lit[:, 19, 19] = 1000
    assert np.abs(model(dark)[0, 0, 0] - model(lit)[0, 0, 0]).max() > 1e-3


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="expected .batch, places…, channels. with 1 to 3 dimensions"):
        squeeze_excitation(keras.Input((8,)))
