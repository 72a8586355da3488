"""What models of several processes must not do is refused before they train."""

import keras
import pytest

from experiments_manager.training.errors import TrainingError
from experiments_manager.training.hosts.replicas import require_no_accumulation


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
