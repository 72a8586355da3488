"""Attention over channels and places, and views of several widths, for feature maps of any number of dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import layers, ops

_CONVOLUTIONS = {3: layers.Conv1D, 4: layers.Conv2D, 5: layers.Conv3D}


def squeeze_excitation(x: Any, *, reduction: int = 16) -> Any:
    """Weigh channels by what all places together say (Hu et al., "Squeeze-and-Excitation Networks", 2018).

    Args:
        x: Of shape [batch, …, channels], with one to three dimensions of places.
        reduction: The hidden layer has so many times fewer units than there are channels.

    Returns:
        Of the same shape.
    """
    _convolution(x)
    channels, places = x.shape[-1], tuple(range(1, len(x.shape) - 1))
    squeezed = ops.mean(x, axis=places, keepdims=True)
    hidden = layers.Dense(max(1, channels // reduction), activation="relu")(squeezed)
    return x * layers.Dense(channels, activation="sigmoid")(hidden)


def spatial_attention(x: Any) -> Any:
    """Tell how much each place counts (Sun et al., "Saunet: Shape Attentive U-Net", 2020).

    Args:
        x: Of shape [batch, …, channels], with one to three dimensions of places.

    Returns:
        Weights in 0..1 of shape [batch, …, 1].
    """
    convolution = _convolution(x)
    hidden = convolution(max(1, x.shape[-1] // 2), 1, activation="relu")(x)
    return convolution(1, 1, activation="sigmoid")(hidden)


def dual_attention(x: Any, *, reduction: int = 16) -> Any:
    """Weigh channels and places (Sun et al. 2020); the result has the shape of `x`, [batch, …, channels]."""
    return squeeze_excitation(x, reduction=reduction) * (1 + spatial_attention(x))


def atrous_pyramid(x: Any, filters: int, *, rates: Sequence[int] = (1, 6, 12, 18)) -> Any:
    """See each place with surroundings of several widths (Chen et al., "Rethinking Atrous Convolution", 2017).

    Args:
        x: Of shape [batch, …, channels], with one to three dimensions of places.
        filters: Channels of the result.
        rates: Dilations of the convolutions of width 3 that lie side by side; 1 stands for one of width 1.

    Returns:
        Of shape [batch, …, filters].
    """
    convolution, places = _convolution(x), tuple(range(1, len(x.shape) - 1))
    options = {"padding": "same", "use_bias": False}
    views = [
        _normalised(convolution(filters, 1 if rate == 1 else 3, dilation_rate=rate, **options)(x)) for rate in rates
    ]
    everywhere = layers.Dense(filters, activation="relu")(ops.mean(x, axis=places, keepdims=True))
    # A convolution of width 1 over all of them, of which what is the same everywhere needs to be multiplied only once.
    joined = convolution(filters, 1, use_bias=False)(layers.Concatenate()(views))
    return _normalised(joined + layers.Dense(filters, use_bias=False)(everywhere))


def _normalised(x: Any) -> Any:
    return layers.Activation("relu")(layers.BatchNormalization()(x))


def _convolution(x: Any) -> Any:
    """Return the layer that fits the number of dimensions.

    Raises:
        ValueError: There is none.
    """
    if len(x.shape) not in _CONVOLUTIONS:
        raise ValueError(
            f"Invalid shape {tuple(x.shape)}: expected [batch, places…, channels] with 1 to 3 dimensions of places."
        )
    return _CONVOLUTIONS[len(x.shape)]
