"""Nets that give each pixel of an image its class, as functions of Keras tensors, and what measures them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

_ENDS = (
    "block_1_expand_relu",
    "block_3_expand_relu",
    "block_6_expand_relu",
    "block_13_expand_relu",
    "block_16_project",
)
"""Layers of a MobileNetV2 whose outputs have 1/2, 1/4, 1/8, 1/16 and 1/32 of the image's height and width."""


def mobilenet_v2_encoder(
    image: Any, *, alpha: float = 0.35, weights: str | None = None, levels: int = 4
) -> tuple[Any, list[Any]]:
    """Look at an image with a MobileNetV2 (Sandler et al. 2018).

    Args:
        image: Of shape [batch, height, width, 3] in 0..1; height and width are known, and multiples of 32.
        alpha: Width of the net: 0.35, 0.5, 0.75, 1.0, 1.3 or 1.4.
        weights: A file of weights without the top, as `keras.applications` has them; `None` begins at random.
        levels: How many times the resolution is halved, 1 to 5.

    Returns:
        What it sees in the end, and what it sees at each resolution before, the finest first; both for `unet_decoder`.
    """
    net = keras.applications.MobileNetV2(
        input_shape=tuple(image.shape[1:]), alpha=alpha, include_top=False, weights=weights
    )
    if weights is None:  # averages over a thousand steps, as these layers have them, suit a longer training
        for layer in net.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.momentum = 0.9
    encoder = keras.Model(net.input, [net.get_layer(name).output for name in _ENDS[:levels]], name="encoder")
    *seen, deepest = encoder(layers.Rescaling(2.0, offset=-1.0)(image))
    return deepest, seen


def unet_decoder(deepest: Any, seen: Sequence[Any], filters: Sequence[int]) -> Any:
    """Bring what an encoder saw back to the finest resolution, as a U-Net does (Ronneberger et al. 2015).

    Args:
        deepest: What the encoder saw in the end.
        seen: What it saw at each finer resolution, the finest first.
        filters: Channels at each of these resolutions, the finest first.

    Returns:
        Of the height and width of the finest, with the first of `filters` as channels.
    """
    x = deepest
    for skipped, channels in zip(reversed(seen), reversed(filters), strict=True):
        x = conv_block(layers.UpSampling2D()(conv_block(x, channels, 1)), channels)
        x = layers.Concatenate()([x, conv_block(skipped, channels, 1)])
        x = conv_block(x, channels)
    return x


def conv_block(x: Any, filters: int, kernel_size: int = 3, *, strides: int = 1) -> Any:
    """Convolve, normalise the batch, and rectify."""
    x = layers.Conv2D(filters, kernel_size, strides=strides, padding="same", use_bias=False)(x)
    return layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(x))


def dense_block(x: Any, depth: int, growth: int) -> Any:
    """Append some channels at a time, each made of all before (Huang et al. 2017).

    Args:
        x: Of shape [batch, height, width, channels].
        depth: How many times.
        growth: Channels that each time adds.

    Returns:
        Of shape [batch, height, width, channels + depth * growth].
    """
    for _ in range(depth):
        x = layers.Concatenate()([x, conv_block(x, growth)])
    return x


def class_map(x: Any, classes: int, scale: int, name: str = "classes") -> Any:
    """Give the probability of each class at each pixel.

    Args:
        x: Of shape [batch, height, width, channels].
        classes: How many there are.
        scale: How many times as high and wide the image is.
        name: Of the output.

    Returns:
        Of shape [batch, scale * height, scale * width, classes].
    """
    x = layers.Conv2D(classes, 1)(x)
    if scale > 1:
        x = layers.UpSampling2D(scale, interpolation="bilinear")(x)
    return layers.Softmax(dtype="float32", name=name)(x)


@keras.saving.register_keras_serializable("experiments_manager")
class PixelCrossentropy(keras.losses.SparseCategoricalCrossentropy):
    """The cross-entropy of Keras, which does not spread a weight a sample over pixels where it ignores some."""

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return the loss of labels [batch, …] and probabilities [batch, …, classes], by weights [batch, …]."""
        if sample_weight is not None:
            sample_weight = keras.ops.convert_to_tensor(sample_weight)
            while len(sample_weight.shape) < len(y_pred.shape) - 1:
                sample_weight = keras.ops.expand_dims(sample_weight, -1)
        return super().__call__(y_true, y_pred, sample_weight)


def segmentation_loss(ignored: int = 255) -> keras.losses.Loss:
    """Return the cross-entropy over all pixels whose label is not `ignored`."""
    return PixelCrossentropy(ignore_class=ignored)


def iou_metrics(class_names: Sequence[str], ignored: int = 255) -> list[keras.metrics.Metric]:
    """Return metrics for probabilities [batch, height, width, classes] against labels [batch, height, width].

    Args:
        class_names: Names of the classes; `iou_<name>` is the intersection over union of each.
        ignored: Label of pixels that do not count.

    Returns:
        `mean_iou`, and one metric a class.
    """
    options = {"num_classes": len(class_names), "ignore_class": ignored, "sparse_y_pred": False}
    each = [
        keras.metrics.IoU(target_class_ids=[index], name=f"iou_{name}".replace(" ", "_"), **options)
        for index, name in enumerate(class_names)
    ]
    return [keras.metrics.MeanIoU(name="mean_iou", **options), *each]
