"""Parts of an anchor-free one-stage detector: an encoder, a way back up, and a head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras import initializers, layers, ops

from experiments_manager.models.detection.masks import packed


def residual_encoder(x: Any, filters: Sequence[int], *, blocks: int = 1) -> list[Any]:
    """Halve an image once for each number of filters.

    Args:
        x: Of shape [batch, height, width, channels]; the sides are multiples of 2 to the power of the stages.
        filters: Channels of each stage.
        blocks: Residual blocks of each stage but the first, which has none.

    Returns:
        What each stage gives, the finest first.
    """
    stages = []
    for stage, width in enumerate(filters):
        x = _convolution(x, width, strides=2)
        for _ in range(blocks if stage else 0):
            y = _convolution(_convolution(x, width), width, activation=None)
            x = layers.Activation("relu")(layers.Add()([x, y]))
        stages.append(x)
    return stages


def top_down(stages: Sequence[Any], filters: int) -> Any:
    """Bring what the coarse stages saw up to the finest one, as in a feature pyramid (Lin et al. 2017).

    Args:
        stages: What an encoder gives, the finest first, each half as large as the one before.
        filters: Channels of the result.

    Returns:
        Of the size of the first stage.
    """
    x = layers.Conv2D(filters, 1)(stages[-1])
    for stage in reversed(stages[:-1]):
        x = layers.Add()([layers.UpSampling2D()(x), layers.Conv2D(filters, 1)(stage)])
        x = _convolution(x, filters)
    return x


def mask_prototypes(x: Any, fine: Any, count: int, *, filters: int = 32) -> Any:
    """Make the shapes that the masks of all objects in an image are sums of (Bolya et al. 2019).

    Args:
        x: Features of the cells, [batch, rows, columns, channels], as `detection_head` gets them.
        fine: The stage of the encoder that is twice as fine, [batch, 2 rows, 2 columns, channels].
        count: How many shapes.
        filters: Channels of the layer in between.

    Returns:
        [batch, 2 rows, 2 columns, count].
    """
    return layers.Conv2D(count, 1)(top_down([fine, x], filters))


def detection_head(x: Any, classes: int, *, filters: int = 64, prototypes: Any = None, name: str = "detections") -> Any:
    """Say for each cell which object has its middle there, and how far its sides are.

    Args:
        x: Features of shape [batch, rows, columns, channels].
        classes: Number of classes.
        filters: Channels of the layers in between.
        prototypes: For masks, what `mask_prototypes` gives.
        name: Of the output.

    Returns:
        [batch, rows, columns, classes + 4]: logits, and the distances in cells from the middle of the cell to the
        object's upper, left, lower and right side. With prototypes, `count` channels follow, the coefficients of the
        object's mask, and 4 `count` with the prototypes.
    """
    # Few cells hold a middle: beginning with a probability of 0.01 keeps the first steps steady (Lin et al. 2018).
    rare = initializers.Constant(-4.6)
    logits = layers.Conv2D(classes, 1, bias_initializer=rare)(_convolution(x, filters))
    sides = layers.Conv2D(4, 1, bias_initializer="ones")(_convolution(x, filters))
    sides = ops.softplus(sides) * 2.0
    parts = [logits, sides]
    if prototypes is not None:
        parts.append(layers.Conv2D(prototypes.shape[-1], 1, activation="tanh")(_convolution(x, filters)))
        parts.append(packed(prototypes))
    return layers.Concatenate(name=name, dtype="float32")(parts)


def _convolution(x: Any, filters: int, *, strides: int = 1, activation: str | None = "relu") -> Any:
    x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    return layers.Activation(activation)(x) if activation else x
