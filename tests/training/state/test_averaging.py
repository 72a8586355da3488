"""Moving averages of the weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments_manager.training.state.averaging import Averages

LINEAR = """
    def optimizer(learning_rate):
        return keras.optimizers.SGD(learning_rate)
"""


def linear_regression(x, y, weight, bias, *, epochs, batch_size, rate, momentum):
    """Trains in NumPy what the settings declare, and gives the last weights and their averages."""
    live = [weight.astype(np.float64), bias.astype(np.float64)]
    averages, step = [value.copy() for value in live], 0
    for _ in range(epochs):
        for first in range(0, len(x), batch_size):
            inputs, targets = x[first : first + batch_size], y[first : first + batch_size]
            error = 2 * (inputs @ live[0] + live[1] - targets) / len(inputs)
            live = [live[0] - rate * inputs.T @ error, live[1] - rate * error.sum(axis=0)]
            decay = min(momentum, (1 + step) / (10 + step))
            averages = [decay * mean + (1 - decay) * value for mean, value in zip(averages, live, strict=True)]
            step += 1
    return live, averages


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [0.99, 0.3], ids=["in_the_ramp", "beyond_the_ramp"])
def test_averages_follow_the_ramp_and_are_what_is_validated(experiment, momentum):
    trained = experiment(LINEAR, {"shuffle": False, "ema_momentum": momentum})
    x, y = trained.settings.call("dataset", split="train")
    begin = experiment(LINEAR, {"learning_rate": 1e-30, "epochs": 1}).weights
    rules = {"epochs": 2, "batch_size": 8, "rate": 0.05, "momentum": momentum}
    live, averages = linear_regression(x, y, *begin, **rules)
    for number in range(2):
        np.testing.assert_allclose(trained.weights[number], live[number], rtol=1e-4)
        np.testing.assert_allclose(trained.tensors[f"averages/000{number}"], averages[number], rtol=1e-4)
    x, y = trained.settings.call("dataset", split="validation")
    loss = ((x @ averages[0] + averages[1] - y) ** 2).mean()
    assert trained.history["val_loss"][-1] == pytest.approx(loss, rel=1e-4)
    assert trained.history["val_loss"][-1] != pytest.approx(((x @ live[0] + live[1] - y) ** 2).mean(), rel=1e-3)


def test_without_momentum_the_weights_themselves_are_validated(experiment):
    trained = experiment(LINEAR, {"ema_momentum": None})
    x, y = trained.settings.call("dataset", split="validation")
    weight, bias = trained.weights
    assert trained.history["val_loss"][-1] == pytest.approx(((x @ weight + bias - y) ** 2).mean(), rel=1e-5)
    assert not any(name.startswith("averages/") for name in trained.tensors)


@pytest.fixture
def averages():
    variables = [keras.Variable([0.1, 0.2]), keras.Variable([[3.0]])]
    averages = Averages(variables, 0.9)
    for variable in variables:
        variable.assign(variable * 7.0)
    averages.update(tf.constant(0, tf.int64))
    return variables, averages


def test_averages_stand_in_for_the_weights_and_give_their_place_back_to_the_bit(averages):
    variables, averages = averages
    live = [variable.numpy() for variable in variables]
    means = [average.numpy() for average in averages.averages]
    with averages.swapped_in():
        assert all(np.array_equal(variable, mean) for variable, mean in zip(variables, means, strict=True))
    assert all(np.array_equal(variable, value) for variable, value in zip(variables, live, strict=True))
    assert all(np.array_equal(one, other) for one, other in zip(averages.averages, means, strict=True))


def test_weights_are_back_after_a_validation_that_raised(averages):
    variables, averages = averages
    live = [variable.numpy() for variable in variables]
    with pytest.raises(ValueError, match="no validation"), averages.swapped_in():
        raise ValueError("no validation")
    assert all(np.array_equal(variable, value) for variable, value in zip(variables, live, strict=True))
