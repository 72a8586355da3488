"""Test-then-train ("prequential") metrics: each batch is tested with the weights from before its own step.

On a stream every sample is new when it is tested, so these are an honest measure of a model that goes on learning,
without a validation set. Source: A. P. Dawid, "Statistical Theory: The Prequential Approach", J. R. Stat. Soc. A 147
(1984); J. Gama et al., "On evaluating stream learning algorithms", Machine Learning 90 (2013).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from experiments_manager.training.state.progress import TrainingProgress

PREFIX = "prequential_"
MEMORY = 0.9
"""Weight of what was before in the running mean of the loss, from epoch to epoch."""


class Prequential:
    """Runs the model's `test_step` before its training step, with metrics that count for themselves.

    The model's own metric objects are used: their variables are exchanged for the time of the test, so that any metric
    and any `test_step` of the user's will do.

    Args:
        model: Built and compiled.
        test_step: Runs the model's `test_step` on a batch, in the graph; returns tensors by name.
    """

    def __init__(self, model: keras.Model, test_step: Callable[[Any], dict[str, tf.Tensor]]) -> None:
        self._test_step = test_step
        self._shown = [variable.value for variable in model.metrics_variables]
        self._own = [
            tf.Variable(variable, trainable=False, name=f"{PREFIX}{number}")
            for number, variable in enumerate(self._shown)
        ]
        self.reset = tf.function(self._reset, autograph=False)

    def _reset(self) -> None:
        """Begin to count anew; the model's own metrics must have been reset just before."""
        for own, shown in zip(self._own, self._shown, strict=True):
            own.assign(shown)

    def test(self, data: Any) -> dict[str, tf.Tensor]:
        """In the graph: test a batch; return loss and metrics over the epoch so far."""
        held = [tf.identity(variable) for variable in self._shown]
        with tf.control_dependencies(held):
            put = [shown.assign(own) for shown, own in zip(self._shown, self._own, strict=True)]
        with tf.control_dependencies(put):
            logs = {f"{PREFIX}{name}": tf.identity(value) for name, value in self._test_step(data).items()}
        with tf.control_dependencies(list(logs.values())):
            kept = [own.assign(shown) for own, shown in zip(self._own, self._shown, strict=True)]
        with tf.control_dependencies(kept):
            for variable, value in zip(self._shown, held, strict=True):
                variable.assign(value)
        return logs


def loss_drift(progress: TrainingProgress, logs: dict[str, float]) -> dict[str, float]:
    """Return by how much the loss of an epoch exceeds the running mean of those before, as a share of it.

    Args:
        progress: Keeps that mean, and takes the epoch into it.
        logs: Loss and metrics of the epoch; the prequential loss counts where there is one.
    """
    loss = logs.get(f"{PREFIX}loss", logs.get("loss"))
    before, values = progress.running_loss, {}
    if loss is None:
        return {}
    if before:
        values["kafka/loss_drift"] = loss / before - 1
    progress.running_loss = loss if before is None else MEMORY * before + (1 - MEMORY) * loss
    return values
