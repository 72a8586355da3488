"""Layers that Keras does not have."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments_manager.models.layers import ConcreteDropout, DepthToSpace


def test_channels_become_places_as_in_tensorflow():
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 18)).astype("float32")
    np.testing.assert_array_equal(DepthToSpace(3)(x), tf.nn.depth_to_space(x, 3))
    assert DepthToSpace(3).compute_output_shape((None, None, 5, 18)) == (None, None, 15, 2)


def test_channels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="a multiple of 9 channels"):
        DepthToSpace(3)(np.zeros((1, 2, 2, 8), "float32"))


def test_images_of_unknown_size_are_taken():
    image = keras.Input((None, None, 4))
    model = keras.Model(image, DepthToSpace(2)(image))
    assert model(np.zeros((1, 3, 7, 4), "float32")).shape == (1, 6, 14, 1)


def test_concrete_dropout_keeps_the_mean_and_drops_its_rate():
    layer = ConcreteDropout(0.3, seed=0)
    dropped = layer(np.ones((2000, 50), "float32"), training=True).numpy()
    assert abs(dropped.mean() - 1) < 0.03
    assert abs((dropped < 0.5).mean() - 0.3) < 0.03
    np.testing.assert_array_equal(layer(np.ones((2, 50), "float32"), training=False), np.ones((2, 50)))


def test_concrete_dropout_learns_its_rate():
    layer = ConcreteDropout(0.5, entropy_weight=0, seed=0)
    model = keras.Sequential([keras.Input((20,)), layer])
    model.compile(keras.optimizers.Adam(0.1), "mean_squared_error")
    x = np.ones((256, 20), "float32")
    model.fit(x, x, epochs=30, verbose=0)
    assert layer.rate < 0.2, "without a prize for dropping it drops less"


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_concrete_dropout_trains_in_mixed_precision(policy):
    layer = ConcreteDropout(0.3, seed=0, dtype=policy)
    x = np.ones((256, 20), "float32")
    model = keras.Sequential([keras.Input((20,)), layer, keras.layers.Dense(1, dtype="float32")])
    model.compile(keras.optimizers.Adam(0.01), "mean_squared_error")
    assert np.isfinite(model.fit(x, x[:, :1], verbose=0).history["loss"]).all()
    assert abs(np.mean(np.asarray(layer(x, training=True), "float32") < 0.5) - 0.3) < 0.06
    assert layer(x).dtype == policy.removeprefix("mixed_")


def test_layers_are_made_again_from_their_files(tmp_path):
    x = keras.Input((2, 2, 8))
    model = keras.Model(x, ConcreteDropout(0.2, seed=1)(DepthToSpace(2)(x)))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    values = np.random.default_rng(0).normal(size=(2, 2, 2, 8)).astype("float32")
    np.testing.assert_array_equal(again(values), model(values))
    assert abs(float(again.layers[-1].rate) - 0.2) < 1e-6
