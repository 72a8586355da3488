"""The norm of the gradient, against the one that a `GradientTape` gives."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments_manager.training.observe.gradient_norm import GradientNorm
from experiments_manager.training.state.reachable import optimizers_of

X = np.random.default_rng(0).normal(size=(4, 16, 4)).astype("float32")
Y = X.sum(axis=-1, keepdims=True)


class OwnStep(keras.Sequential):
    """Applies its gradients in a `tf.cond` within a `tf.function`, out of which no tensor comes."""

    @tf.function
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x, training=True) - y) ** 2)
        gradients = tape.gradient(loss, self.trainable_weights)
        tf.cond(loss > 0.0, lambda: self.optimizer.apply(gradients, self.trainable_weights), lambda: None)
        return {"loss": loss}


def dense_model(optimizer, kind=keras.Sequential):
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    model = kind([keras.Input([4]), keras.layers.Dense(8, activation="gelu"), keras.layers.Dense(1, dtype="float32")])
    model.compile(optimizer, "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


def gradients_of(model, x, y):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(x, training=True) - y) ** 2)
    return tape.gradient(loss, model.trainable_weights)


def norm_of(gradients):
    return float(tf.linalg.global_norm(gradients))


def train(model, *, jit_compile=False, steps=4, every=1):
    """Trains some steps; gives what was noted of each, and what the tape says before it."""
    gradient_norm = GradientNorm(model, every=every, jit_compile=jit_compile)

    @tf.function(jit_compile=jit_compile, autograph=False)
    def one(x, y):
        with gradient_norm.recorded():
            return model.train_step((x, y))

    noted, gradients = [], []
    for x, y in zip(X[:steps], Y[:steps], strict=True):
        gradients.append(gradients_of(model, x, y))
        one(x, y)
        noted.append(float(gradient_norm.read()))
    return noted, gradients


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize(
    ("options", "kind"),
    [({}, keras.Sequential), ({"global_clipnorm": 0.1}, keras.Sequential), ({}, OwnStep)],
    ids=["plain", "clipped", "own_train_step"],
)
def test_it_is_the_norm_over_all_weights_before_clipping(options, kind, jit_compile):
    noted, gradients = train(dense_model(keras.optimizers.SGD(0.01, **options), kind), jit_compile=jit_compile)
    assert noted == pytest.approx([norm_of(step) for step in gradients], rel=1e-5)


def test_with_accumulation_it_is_that_of_the_mean_and_there_is_none_between_updates():
    noted, gradients = train(dense_model(keras.optimizers.SGD(0.01, gradient_accumulation_steps=2)))
    means = [[(a + b) / 2 for a, b in zip(*gradients[first : first + 2], strict=True)] for first in (0, 2)]
    assert noted[1::2] == pytest.approx([norm_of(mean) for mean in means], rel=1e-5)
    assert np.isnan(noted[0::2]).all()


def test_with_a_loss_scale_it_is_not_scaled_and_there_is_none_for_a_step_left_out():
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), initial_scale=2.0**127)
    noted, gradients = train(dense_model(scaled))
    assert np.isnan(noted[0])
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), initial_scale=1024.0)
    noted, gradients = train(dense_model(scaled))
    assert noted == pytest.approx([norm_of(step) for step in gradients], rel=1e-5)


def test_all_optimizers_of_an_adversarial_model_count():
    class Adversarial(keras.Sequential):
        def train_step(self, data):
            gradients = gradients_of(self, *data)
            self.optimizer.apply(gradients[:2], self.trainable_weights[:2])
            self.second.apply(gradients[2:], self.trainable_weights[2:])
            return {}

    model = dense_model(keras.optimizers.SGD(0.01), Adversarial)
    model.optimizer = keras.optimizers.SGD(0.01)
    model.second = keras.optimizers.Adam(0.01)
    model.optimizer.build(model.trainable_variables[:2])
    model.second.build(model.trainable_variables[2:])
    assert list(optimizers_of(model).values()) == [model.optimizer, model.second]
    noted, gradients = train(model)
    assert noted == pytest.approx([norm_of(step) for step in gradients], rel=1e-5)


def test_the_optimizers_behind_a_division_among_variables_count():
    groups = keras.optimizers.MultiOptimizer(
        lambda variable: keras.optimizers.SGD(0.01) if "kernel" in variable.path else keras.optimizers.Adam(0.01)
    )
    noted, gradients = train(dense_model(groups))
    assert noted == pytest.approx([norm_of(step) for step in gradients], rel=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_rows_of_a_sparse_gradient_that_come_several_times_are_added_up(jit_compile):
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input([3], dtype="int32"), keras.layers.Embedding(5, 2), keras.layers.Flatten()])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    x, y = tf.constant([[1, 1, 2], [2, 1, 4]]), tf.ones([2, 6])
    expected = norm_of([tf.convert_to_tensor(gradient) for gradient in gradients_of(model, x, y)])
    gradient_norm = GradientNorm(model, jit_compile=jit_compile)

    @tf.function(jit_compile=jit_compile, autograph=False)
    def one():
        with gradient_norm.recorded():
            model.train_step((x, y))
        return gradient_norm.read()

    assert float(one()) == pytest.approx(expected, rel=1e-5)


def test_the_optimizer_is_left_as_it_was():
    model = dense_model(keras.optimizers.SGD(0.01))
    train(model, steps=1)
    assert "_clip_gradients" not in vars(model.optimizer)
    assert model.optimizer._clip_gradients.__func__ is keras.optimizers.Optimizer._clip_gradients


def test_where_nothing_is_applied_there_is_no_norm():
    class Idle(keras.Sequential):
        def train_step(self, data):
            return {"loss": tf.constant(0.0)}

    noted, _ = train(dense_model(keras.optimizers.SGD(0.01), Idle), steps=1)
    assert np.isnan(noted[0])


def test_several_optimizers_are_measured_at_each_step_as_each_counts_its_own_updates():
    class Unequal(keras.Sequential):
        def train_step(self, data):
            gradients = gradients_of(self, *data)
            self.optimizer.apply([0.0 * gradient for gradient in gradients], self.trainable_weights)
            self.optimizer.apply(gradients[:2], self.trainable_weights[:2])
            self.second.apply(gradients[2:], self.trainable_weights[2:])
            return {}

    model = dense_model(keras.optimizers.SGD(0.01), Unequal)
    model.second = keras.optimizers.SGD(0.01)
    model.second.build(model.trainable_variables[2:])
    noted, gradients = train(model, every=10)
    assert noted == pytest.approx([norm_of(step) for step in gradients], rel=1e-5)
