"""Parts of models for sequences, as functions of Keras tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import layers, ops


def temporal_convolutions(
    x: Any, filters: int, *, kernel_size: int = 3, dilations: Sequence[int] = (1, 2, 4, 8), dropout: float = 0.0
) -> Any:
    """Apply a temporal convolutional net: causal, dilated convolutions in residual blocks.

    As in Bai, Kolter and Koltun 2018, with layer normalisation in place of weight normalisation. The last step sees
    `1 + 2 (kernel_size - 1) sum(dilations)` steps.

    Args:
        x: Of shape [batch, steps, channels].
        filters: Channels of all blocks.
        kernel_size: Steps that a convolution sees.
        dilations: Distance of these steps; a block each.
        dropout: Share of whole channels that is dropped in training.

    Returns:
        Of shape [batch, steps, filters].
    """
    for dilation in dilations:
        y = x
        for _ in range(2):
            y = layers.Conv1D(filters, kernel_size, padding="causal", dilation_rate=dilation)(y)
            y = layers.LayerNormalization()(y)
            y = layers.SpatialDropout1D(dropout)(layers.Activation("relu")(y))
        if x.shape[-1] != filters:
            x = layers.Conv1D(filters, 1)(x)
        x = layers.Activation("relu")(layers.Add()([x, y]))
    return x


def nbeats(x: Any, horizon: int, *, blocks: int = 4, units: int = 128, depth: int = 3, outputs: int = 1) -> Any:
    """Forecast by a stack of generic N-BEATS blocks (Oreshkin et al. 2020).

    Each block takes away from the past what it explains, and adds its part of the forecast.

    Args:
        x: Of shape [batch, steps].
        horizon: Steps to forecast.
        blocks: Blocks of the stack.
        units: Units of each of their layers.
        depth: Layers of a block.
        outputs: Numbers for each step that is forecast, e.g. quantiles.

    Returns:
        Of shape [batch, horizon, outputs].
    """
    forecast = None
    for _ in range(blocks):
        y = x
        for _ in range(depth):
            y = layers.Dense(units, activation="relu")(y)
        x = layers.Subtract()([x, layers.Dense(x.shape[-1])(y)])
        part = layers.Dense(horizon * outputs)(y)
        forecast = part if forecast is None else layers.Add()([forecast, part])
    return layers.Reshape((horizon, outputs))(forecast)


def last_step(x: Any) -> Any:
    """Return the last step of a sequence: [batch, steps, channels] gives [batch, channels]."""
    return ops.take(x, -1, axis=1)
