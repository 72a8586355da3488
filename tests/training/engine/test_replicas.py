"""What replicas on several hosts tell each other, and what models must not do there."""

import keras
import pytest
import tensorflow as tf

from experiments_manager.training.engine.replicas import require_no_accumulation, state_of_step
from experiments_manager.training.errors import TrainingError


def model_with(optimizer):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(optimizer, "mean_squared_error")
    return model


def test_an_optimizer_that_accumulates_gradients_is_refused_even_behind_a_loss_scale():
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, gradient_accumulation_steps=4))
    with pytest.raises(TrainingError, match="gradient_accumulation_steps: .* Expected None, got 4"):
        require_no_accumulation(model_with(optimizer))


def test_other_optimizers_are_taken():
    assert require_no_accumulation(model_with(keras.optimizers.SGD(0.1))) is None, "it raises where it refuses"


class Average(keras.layers.Layer):
    """Keeps an average in a variable that Keras does not list, and one that stays as it is."""

    def build(self, shape):
        self.mean = tf.Variable(tf.zeros(shape[-1]), trainable=False, name="mean")
        self.scale = tf.Variable(tf.ones(shape[-1]), trainable=False, name="scale")

    def call(self, inputs, training=False):
        if training:
            self.mean.assign(0.9 * self.mean + 0.1 * tf.reduce_mean(inputs, 0))
        return (inputs - self.mean) * self.scale


def test_what_a_step_writes_is_sent_and_what_is_frozen_is_not():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        frozen = [keras.layers.Dense(3), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
        for layer in frozen:
            layer.trainable = False
        written = [keras.layers.BatchNormalization(name="norm"), Average()]
        model = keras.Sequential([keras.Input((3,)), *frozen, *written, keras.layers.Dense(1)])
        model.compile(keras.optimizers.Adam(0.1), "mean_squared_error")
    sent = []

    @tf.function
    def step(x, y):
        def on_replica():
            model.train_step((x, y))
            sent.extend(state_of_step(model))

        strategy.run(on_replica)

    step(tf.zeros((4, 3)), tf.zeros((4, 1)))
    norm, average = written
    expected = [norm.moving_mean.value, norm.moving_variance.value, average.mean]
    seeds = [variable.value for variable in frozen[2].variables]
    assert {id(variable) for variable in sent} - {id(seed) for seed in seeds} == {id(each) for each in expected}
