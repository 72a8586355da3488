"""Which tensors count as the features of a model."""

import keras
import pytest

from experiments_manager.training.observe.inner_layers import features_before_outputs

Dense, Input, layers = keras.layers.Dense, keras.Input, keras.layers


def names(model):
    return list(features_before_outputs(model))


def functional(outputs, x):
    return keras.Model(x, outputs)


@pytest.fixture(autouse=True)
def _anew():
    keras.utils.clear_session()


def test_the_layer_before_the_last_is_found_in_functional_and_sequential_models():
    x = Input([4])
    hidden = Dense(8, name="hidden")(x)
    assert names(keras.Model(x, Dense(1)(hidden))) == ["hidden"]
    assert names(keras.Sequential([Input([4]), Dense(5, name="code"), Dense(1)])) == ["code"]


def test_what_follows_the_last_weights_is_passed_over():
    stack = [Input([4]), Dense(5, name="code"), Dense(7), layers.Softmax(), layers.Rescaling(2.0)]
    assert names(keras.Sequential(stack)) == ["code"]


def test_what_only_acts_in_training_is_passed_over():
    stack = [Input([4]), Dense(5, name="code"), layers.Dropout(0.5), layers.GaussianNoise(0.1), Dense(1)]
    assert names(keras.Sequential(stack)) == ["code"]
    assert names(keras.Sequential([Input([4]), layers.Dropout(0.5), Dense(1)])) == []


def test_each_output_has_its_own_and_one_that_is_shared_comes_once():
    x = Input([4])
    shared, own = Dense(8, name="shared")(x), Dense(6, name="own")(x)
    model = keras.Model(x, {"a": Dense(1)(shared), "b": Dense(2)(shared), "c": Dense(1)(own)})
    assert sorted(names(model)) == ["own", "shared"]


@pytest.mark.parametrize(
    "stack",
    [
        [Dense(1)],  # the inputs are no features
        [Dense(2), Dense(1)],
        [Dense(4000), Dense(1)],
        [layers.Rescaling(2.0)],
    ],
)
def test_inputs_and_what_is_narrow_or_very_wide_are_left_out(stack):
    assert names(keras.Sequential([Input([4]), *stack])) == []


def test_an_output_is_not_shown_a_second_time():
    x = Input([4])
    features = Dense(8, name="features")(x)
    assert names(keras.Model(x, [features, Dense(1)(features)])) == []


def test_maps_of_features_count_whatever_their_size():
    pictures = [Input([None, None, 3]), layers.Conv2D(16, 3, name="map"), layers.Conv2D(1, 1)]
    assert names(keras.Sequential(pictures)) == ["map"]


def test_features_of_a_model_within_the_model_are_found():
    inner = keras.Sequential([Input([4]), Dense(9), Dense(6)], name="backbone")
    x = Input([4])
    model = keras.Model(x, Dense(1, name="head")(inner(x)))
    assert [list(tensor.shape) for tensor in features_before_outputs(model).values()] == [[None, 6]]


def test_a_layer_that_is_called_twice_does_no_harm():
    x = Input([4])
    twice = Dense(4)
    [features] = features_before_outputs(keras.Model(x, Dense(1)(twice(twice(x))))).values()
    assert features.shape == (None, 4)
    assert names(keras.Model(x, twice(twice(x)))) == []


def test_a_model_without_a_graph_of_layers_has_none():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = Dense(4)

        def call(self, x):
            return self.dense(x)

    model = Own()
    assert names(model) == []
    model(keras.ops.ones([2, 3]))
    assert names(model) == []
    assert names(keras.Sequential([Dense(3), Dense(1)])) == []


def test_a_graph_that_the_model_does_not_follow_does_not_count():
    class Scaled(keras.Model):
        def call(self, x, training=False):
            return 2 * super().call(x, training=training)

    class Trained(keras.Model):
        def train_step(self, data):
            return super().train_step(data)

    x = Input([4])
    hidden = Dense(8, name="hidden")(x)
    assert names(Scaled(x, Dense(1)(hidden))) == []
    assert names(Trained(x, Dense(1)(hidden))) == ["hidden"]
