"""A schedule of the learning rate for clients whose optimizer begins anew in each round."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from experiments_manager.compat.keras import schedule_of


class ShiftedSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that goes by the steps of the global model, while the optimizer counts those of the round.

    So what else depends on the optimizer's own count, such as Adam's correction of its averages, begins anew with them.

    Args:
        schedule: By the steps of the whole training.
    """

    def __init__(self, schedule: Any) -> None:
        self._schedule = schedule
        self.steps_before = tf.Variable(0, dtype=tf.int64, trainable=False, name="steps_before")
        """Steps that the global model has behind it."""

    def __call__(self, step: Any) -> Any:
        """Return the rate for a step of the round."""
        return self._schedule(tf.cast(step, tf.int64) + self.steps_before)

    def get_config(self) -> dict[str, Any]:
        """Return the configuration of the schedule within."""
        return self._schedule.get_config()


def shift_schedule(optimizer: keras.optimizers.Optimizer | None) -> ShiftedSchedule | None:
    """Let the schedule of an optimizer be shifted; nothing where its rate is a number."""
    schedule = None if optimizer is None else schedule_of(optimizer)
    if schedule is None:
        return None
    shifted = ShiftedSchedule(schedule)
    optimizer.learning_rate = shifted
    return shifted
