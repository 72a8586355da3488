"""Does Keras still have what it has no public name for? Each failure names the place to look at."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments_manager.compat import keras as compat_keras
from experiments_manager.compat.keras import (
    CALLBACK_ATTRIBUTES,
    build_model,
    failed_metric,
    gradients_seen,
    gradients_summed_by,
    schedule_of,
    seed_states,
)

SEE = "Keras moved or changed {}; see experiments_manager/compat/keras.py"
X, Y = np.ones([4, 3], "float32"), np.ones([4, 1], "float32")


def small_model(optimizer="sgd", **options):
    model = keras.Sequential([keras.layers.Dropout(0.5), keras.layers.Dense(1)])
    model.compile(optimizer, "mse", jit_compile=False, **options)
    return model


def test_build_model_makes_weights_metrics_and_nothing_else(uses):
    model = small_model(metrics=["mae"])
    with uses("Keras", "Model._symbolic_build"):
        build_model(model, (X, Y))
    assert [tuple(weight.shape) for weight in model.trainable_weights] == [(3, 1), (1,)], SEE.format("_symbolic_build")
    assert set(model.get_metrics_result()) == {"loss", "mae"}, SEE.format("_symbolic_build")
    assert all(not np.any(variable) for variable in model.metrics_variables), SEE.format("_symbolic_build")


@pytest.mark.parametrize("make", [keras.optimizers.SGD, keras.optimizers.Adam, keras.optimizers.Muon])
def test_gradients_are_seen_before_they_are_clipped(uses, make):
    model = small_model(make(0.1, global_clipnorm=1e-3))
    seen = []
    build_model(model, (X, Y))
    with uses("Keras", "Optimizer._clip_gradients"), gradients_seen(model.optimizer, seen.append):
        model.optimizer.apply([tf.ones_like(weight) for weight in model.trainable_weights], model.trainable_weights)
    assert len(seen) == 1, SEE.format("Optimizer._clip_gradients")
    assert [float(tf.reduce_max(gradient)) for gradient in seen[0]] == [1.0, 1.0], SEE.format("_clip_gradients")
    assert "_clip_gradients" not in vars(model.optimizer)


def test_gradients_are_added_up_before_they_are_clipped_and_not_once_more_by_keras(monkeypatch):
    added, seen = [], []
    monkeypatch.setattr(
        keras.optimizers.SGD, "_all_reduce_sum_gradients", lambda optimizer, pairs: added.append("by Keras") or pairs
    )
    model = small_model(keras.optimizers.SGD(0.1, global_clipnorm=1e-3))
    build_model(model, (X, Y))
    inner, outer = model.optimizer, keras.optimizers.LossScaleOptimizer(model.optimizer, initial_scale=2.0)
    gradients = [tf.ones_like(weight) for weight in model.trainable_weights]
    with (
        gradients_summed_by(outer, [inner], lambda parts: [6 * part for part in parts]),
        gradients_seen(inner, seen.append),
    ):
        outer.apply(gradients, model.trainable_weights)
    assert [float(tf.reduce_max(gradient)) for gradient in seen[0]] == [3.0, 3.0], SEE.format("Optimizer.apply")
    assert added == []
    outer.apply(gradients, model.trainable_weights)
    assert added == ["by Keras"], SEE.format("TFOptimizer._all_reduce_sum_gradients")


def test_a_gradient_of_each_update_is_seen_where_several_steps_are_accumulated():
    model = small_model(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
    build_model(model, (X, Y))
    seen = []

    @tf.function(autograph=False)
    def update(size):
        noted = tf.Variable(-1.0, trainable=False) if not seen else seen[0]
        if not seen:
            seen.append(noted)
        with gradients_seen(model.optimizer, lambda gradients: noted.assign(tf.reduce_max(gradients[0]))):
            gradients = [size * tf.ones_like(weight) for weight in model.trainable_weights]
            model.optimizer.apply(gradients, model.trainable_weights)

    model.optimizer.build(model.trainable_variables)
    values = []
    for size in (1.0, 3.0):
        update(tf.constant(size))
        values.append(float(seen[0]))
    assert values == [-1.0, 2.0], SEE.format("the place at which accumulated gradients are clipped")


def test_seed_states_are_those_of_layers_and_the_global_one(uses):
    model = small_model()
    build_model(model, (X, Y))
    with uses("Keras", "keras.src.random.seed_generator.global_seed_generator"):
        *of_layers, of_all = seed_states(model)
    assert [tuple(state.shape) for state in of_layers] == [(2,)], SEE.format("the names of seed generators' variables")
    before = keras.ops.convert_to_numpy(of_all)
    keras.random.normal([1])
    assert np.any(keras.ops.convert_to_numpy(of_all) != before), SEE.format("global_seed_generator")


def test_callbacks_hold_nothing_of_keras_own_but_what_is_listed():
    callback = keras.callbacks.Callback()
    callback.set_params({})
    callback.set_model(small_model())
    assert set(vars(callback)) <= set(CALLBACK_ATTRIBUTES), SEE.format("the attributes of a callback")


class Failing(keras.metrics.Mean):
    def update_state(self, *arguments, **options):
        raise ZeroDivisionError


def test_the_metric_that_raised_is_found():
    model = small_model(metrics=["mae", Failing(name="failing"), "mape"])
    error = None
    try:
        build_model(model, (X, Y))
        with contextlib.suppress(StopIteration):
            model.test_step((X, Y))
    except Exception as caught:
        error = caught
    found = failed_metric(error)
    assert found is not None, SEE.format("the functions that loop over metrics")
    assert found.name == "failing", SEE.format("the functions that loop over metrics")


def test_no_error_is_a_metrics_that_was_not_raised_in_one():
    try:
        raise ValueError("something")
    except ValueError as error:
        assert failed_metric(error) is None


def test_the_schedule_of_an_optimizer_is_found_and_can_be_exchanged(uses):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 10, 0.5)
    optimizer = keras.optimizers.Adam(schedule)
    with uses("Keras", "Optimizer._learning_rate"):
        assert schedule_of(optimizer) is schedule, SEE.format("_learning_rate")
        assert schedule_of(keras.optimizers.LossScaleOptimizer(optimizer)) is schedule
        assert schedule_of(keras.optimizers.Adam(0.5)) is None
        optimizer.learning_rate = keras.optimizers.schedules.ExponentialDecay(0.25, 10, 0.5)
        assert float(optimizer.learning_rate) == 0.25


def test_the_operation_that_made_a_symbolic_tensor_is_found(uses):
    x = keras.Input((4,))
    y = keras.ops.add(x, 2.0)
    with uses("Keras", "KerasTensor._keras_history or Operation._inbound_nodes"):
        producer = compat_keras.producer_of(y)
    assert isinstance(producer.operation, keras.Operation)
    assert (producer.arguments, list(producer.outputs)) == (((x, 2.0), {}), [y])
    assert compat_keras.producer_of(x) is None
    assert compat_keras.producer_of(keras.layers.Dense(1)(x)) is None


def test_symbolic_tensors_and_the_backend_of_keras_can_be_extended(uses, monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(keras.KerasTensor, "rank_of_ours", None, raising=False)  # is put back afterwards
    monkeypatch.setattr(tf.keras.backend, "square", tf.keras.backend.square)
    seen = []
    functions = {name: value for name, value in vars(tf.keras.backend).items() if callable(value)}
    with uses("Keras", "KerasTensor or tf.keras.backend"):
        compat_keras.extend_symbolic_tensors(rank_of_ours=lambda tensor: len(tensor.shape))
        compat_keras.wrap_backend_functions(lambda name, function: seen.append(name) or function)
    assert keras.Input((4,)).rank_of_ours() == 2
    assert {"mean", "concatenate", "square", "batch_flatten"} <= set(seen), "keras.src.legacy.backend has moved"
    assert functions == {name: value for name, value in vars(tf.keras.backend).items() if callable(value)}


def test_the_loss_of_a_function_matches_targets_without_a_last_dimension():
    loss = compat_keras.loss_of_function(lambda y_true, y_pred: y_true - y_pred)
    assert loss.call(np.ones([4], "float32"), np.ones([4, 1], "float32")).shape == (4, 1)
