"""Losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable("experiments_manager")
class QuantileLoss(keras.losses.Loss):
    """The pinball loss: a forecast that minimises it gives the quantiles of what may come (Koenker and Bassett 1978).

    Args:
        quantiles: Levels from 0 to 1; the last axis of the forecast has one number for each.
        reduction: As for all losses of Keras.
        name: As for all losses of Keras.
    """

    def __init__(
        self, quantiles: Sequence[float], reduction: str = "sum_over_batch_size", name: str = "quantile_loss"
    ) -> None:
        super().__init__(name=name, reduction=reduction)
        if not quantiles or not all(0 < level < 1 for level in quantiles):
            raise ValueError(f"Invalid quantiles: expected levels between 0 and 1, got {quantiles}.")
        self.quantiles = list(quantiles)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the mean over the quantiles.

        Args:
            y_true: Of shape [batch, …], or [batch, …, 1].
            y_pred: Of shape [batch, …, quantiles].

        Returns:
            Of shape [batch, …].

        Raises:
            ValueError: The shapes do not fit; they would be spread over each other.
        """
        levels = keras.ops.convert_to_tensor(self.quantiles, y_pred.dtype)
        y_true = keras.ops.cast(y_true, y_pred.dtype)
        if not (len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] == 1):
            y_true = keras.ops.expand_dims(y_true, -1)
        _require_fitting(tuple(y_true.shape[:-1]), tuple(y_pred.shape), len(self.quantiles))
        missed = y_true - y_pred
        return keras.ops.mean(keras.ops.maximum(levels * missed, (levels - 1) * missed), axis=-1)

    def get_config(self) -> dict[str, Any]:
        """Return what makes it again."""
        return {**super().get_config(), "quantiles": self.quantiles}


def _require_fitting(true: tuple[int | None, ...], forecast: tuple[int | None, ...], quantiles: int) -> None:
    fits = len(true) == len(forecast) - 1 and forecast[-1] in (None, quantiles)
    if not fits or any(one != other for one, other in zip(true, forecast, strict=False) if None not in (one, other)):
        raise ValueError(
            f"Targets of shape {true} do not fit a forecast of shape {forecast}. Expected targets [batch, …] and a "
            f"forecast [batch, …, {quantiles}], a number for each quantile. Change the targets or the last layer."
        )
