"""Schedules of the learning rate that go by the steps of the global model."""

import keras
import pytest

from experiments_manager.federated.local.shifted_schedule import shift_schedule
from experiments_manager.training.setup.compilation import has_schedule


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "with a loss scale"])
def test_a_schedule_begins_where_it_is_shifted_to(scaled):
    schedule = keras.optimizers.schedules.ExponentialDecay(1.0, 10, 0.5, staircase=True)
    optimizer = keras.optimizers.SGD(schedule)
    optimizer = keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer
    shifted = shift_schedule(optimizer)
    assert float(optimizer.learning_rate) == 1.0
    shifted.steps_before.assign(20)
    assert float(optimizer.learning_rate) == 0.25
    assert has_schedule(optimizer)


def test_a_rate_that_is_a_number_and_a_model_without_an_optimizer_have_none():
    optimizer = keras.optimizers.SGD(0.5)
    assert shift_schedule(optimizer) is None
    assert shift_schedule(None) is None
    assert not has_schedule(optimizer)
