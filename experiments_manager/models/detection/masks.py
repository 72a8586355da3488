"""Masks of instances as sums of prototypes (YOLACT; Bolya et al. 2019): how they are packed, trained and drawn."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from keras import layers, ops

SCALE = 2
"""Prototypes have so many times the rows and columns of the cells."""
_CELLS_OF_A_BOX = 3
"""Cells nearest to the middle of a box whose coefficients are trained: any of them may be the best when it is found."""


def packed(prototypes: Any) -> Any:
    """Give each cell the part of the prototypes that lies in it.

    Args:
        prototypes: Of shape [batch, 2 rows, 2 columns, count].

    Returns:
        [batch, rows, columns, 4 count].
    """
    _, height, width, count = prototypes.shape
    rows, columns = height // SCALE, width // SCALE
    x = layers.Reshape((rows, SCALE, columns, SCALE * count))(prototypes)
    x = layers.Permute((1, 3, 2, 4))(x)
    return layers.Reshape((rows, columns, SCALE * SCALE * count))(x)


def split_masks(predicted: Any, count: int) -> tuple[Any, Any, Any]:
    """Part what `detection_head` gives into that of boxes, coefficients and prototypes.

    Args:
        predicted: Of shape [batch, rows, columns, channels].
        count: Number of prototypes; 0 for none.

    Returns:
        [batch, rows, columns, classes + 4], [batch, rows, columns, count] and [batch, 2 rows, 2 columns, count].
    """
    _, rows, columns, channels = predicted.shape
    first = channels - count * (1 + SCALE * SCALE)
    parts = ops.reshape(predicted[..., first + count :], (-1, rows, columns, SCALE, SCALE, count))
    prototypes = ops.reshape(ops.transpose(parts, (0, 1, 3, 2, 4, 5)), (-1, SCALE * rows, SCALE * columns, count))
    return predicted[..., :first], predicted[..., first : first + count], prototypes


def mask_loss(masks: Any, boxes: Any, bells: Any, coefficients: Any, prototypes: Any) -> Any:
    """Return the cross-entropy of the masks inside of their boxes, a mean over the objects of each image.

    Args:
        masks: The part of each cell of a prototype that an object covers, [batch, boxes, 2 rows, 2 columns].
        boxes: In cells, [batch, boxes, 4]: ymin, xmin, ymax and xmax.
        bells: How near each cell is to the middle of each box, [batch, rows, columns, boxes]; 0 where there is no box.
        coefficients: Of shape [batch, rows, columns, count].
        prototypes: Of shape [batch, 2 rows, 2 columns, count].

    Returns:
        Of shape [batch].
    """
    _, rows, columns, count = coefficients.shape
    objects = boxes.shape[1]
    near = ops.transpose(ops.reshape(bells, (-1, rows * columns, objects)), (0, 2, 1))
    weights, cells = ops.top_k(near, _CELLS_OF_A_BOX)
    weights = ops.where(weights > 0.3, weights, ops.zeros_like(weights))
    flat = ops.reshape(coefficients, (-1, rows * columns, count))
    chosen = ops.take_along_axis(flat, ops.reshape(cells, (-1, objects * _CELLS_OF_A_BOX, 1)), axis=1)
    chosen = ops.reshape(chosen, (-1, objects, _CELLS_OF_A_BOX, count))
    logits = ops.einsum("nbkp,nhwp->nbkhw", chosen, prototypes)
    wanted = ops.broadcast_to(masks[:, :, None], ops.shape(logits))
    costs = ops.binary_crossentropy(wanted, logits, from_logits=True)
    inside = _inside(boxes, SCALE * rows, SCALE * columns)[:, :, None]
    costs = ops.sum(costs * inside, axis=(3, 4)) / ops.maximum(ops.sum(inside, axis=(3, 4)), 1.0)
    return ops.sum(weights * costs, axis=(1, 2)) / ops.maximum(ops.sum(weights, axis=(1, 2)), 1.0)


def _inside(boxes: Any, height: int, width: int) -> Any:
    """Return 1 where the cell of a prototype is in a box or beside it, [batch, boxes, height, width]."""

    def along(axis: int, cells: int) -> Any:
        middle = (ops.arange(cells, dtype=boxes.dtype) + 0.5)[None, None]
        low, high = SCALE * boxes[..., axis, None] - 1.0, SCALE * boxes[..., axis + 2, None] + 1.0
        return ops.cast((middle > low) & (middle < high), boxes.dtype)

    return along(0, height)[..., :, None] * along(1, width)[..., None, :]


def masks_in_boxes(boxes: tf.Tensor, coefficients: tf.Tensor, prototypes: tf.Tensor, cells: int) -> tf.Tensor:
    """Put the masks of boxes together, each seen through its box.

    Args:
        boxes: As parts of the image, [batch, boxes, 4]: ymin, xmin, ymax and xmax.
        coefficients: Of shape [batch, boxes, count].
        prototypes: Of shape [batch, height, width, count].
        cells: Rows and columns of each mask.

    Returns:
        Probabilities [batch, boxes, cells, cells].
    """
    logits = tf.einsum("nbp,nhwp->nbhw", coefficients, prototypes)
    rows = _interpolation(boxes[..., 0], boxes[..., 2], cells, prototypes.shape[1])
    columns = _interpolation(boxes[..., 1], boxes[..., 3], cells, prototypes.shape[2])
    seen = tf.einsum("nbih,nbhw->nbiw", rows, logits)
    return tf.sigmoid(tf.einsum("nbiw,nbjw->nbij", seen, columns))


def _interpolation(low: tf.Tensor, high: tf.Tensor, cells: int, size: int) -> tf.Tensor:
    """Return weights [batch, boxes, cells, size] that interpolate linearly at the middles of cells from low to high."""
    parts = (tf.range(cells, dtype=low.dtype) + 0.5) / cells
    place = (low[..., None] + (high - low)[..., None] * parts) * size - 0.5
    place = tf.clip_by_value(place, 0.0, float(size - 1))
    return tf.maximum(0.0, 1.0 - tf.abs(place[..., None] - tf.range(size, dtype=low.dtype)))
