"""A detector as it is served: encoded images in, boxes out, in the names of the TensorFlow object detection API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from experiments_manager.data.detection import decoded_image
from experiments_manager.models.detection.loss import boxes_of_cells
from experiments_manager.models.detection.masks import SCALE, masks_in_boxes, split_masks


def decode_detections(
    predicted: tf.Tensor,
    class_ids: Sequence[int],
    *,
    max_boxes: int = 100,
    min_score: float = 0.01,
    iou_threshold: float = 0.5,
    mask_cells: int = 28,
) -> dict[str, tf.Tensor]:
    """Turn a detector's output into boxes, of which none of one class overlaps another.

    Args:
        predicted: What `detection_head` gives.
        class_ids: Ids of the classes in the label map, in the order of the logits.
        max_boxes: Boxes of an image.
        min_score: Boxes below it are left out.
        iou_threshold: Intersection over union from which the worse of two boxes is left out.
        mask_cells: Rows and columns of each mask.

    Returns:
        `detection_boxes` [batch, max_boxes, 4] as parts of the image (ymin, xmin, ymax, xmax), `detection_scores` and
        `detection_classes` [batch, max_boxes], the best first, and `num_detections` [batch]; zeros follow the last box.
        For a model with masks, `detection_masks` [batch, max_boxes, mask_cells, mask_cells]: the probability that a
        part of the box belongs to the object. `experiments_manager.data.detection.image_masks` puts them into place.
    """
    rows, columns, classes = predicted.shape[1], predicted.shape[2], len(class_ids)
    count = (predicted.shape[3] - classes - 4) // (1 + SCALE * SCALE)
    predicted, coefficients, prototypes = split_masks(predicted, count)
    scores = tf.reshape(tf.sigmoid(predicted[..., :classes]), [-1, rows * columns, classes])
    boxes = boxes_of_cells(predicted[..., classes:]) / tf.constant([rows, columns, rows, columns], predicted.dtype)
    boxes = tf.reshape(boxes, [-1, rows * columns, 4])
    found = tf.image.combined_non_max_suppression(
        boxes[:, :, None],
        scores,
        max_output_size_per_class=max_boxes,
        max_total_size=max_boxes,
        iou_threshold=iou_threshold,
        score_threshold=min_score,
    )
    is_box = tf.sequence_mask(found.valid_detections, max_boxes, tf.float32)
    masks = {}
    if count:
        cells = _cells_of(found, boxes, scores)
        chosen = tf.gather(tf.reshape(coefficients, [-1, rows * columns, count]), cells, batch_dims=1)
        drawn = masks_in_boxes(found.nmsed_boxes, chosen, prototypes, mask_cells)
        masks["detection_masks"] = drawn * is_box[..., None, None]
    ids = tf.gather(tf.constant(class_ids, tf.float32), tf.cast(found.nmsed_classes, tf.int32))
    return {
        "detection_boxes": found.nmsed_boxes,
        "detection_scores": found.nmsed_scores,
        "detection_classes": ids * is_box,
        "num_detections": tf.cast(found.valid_detections, tf.float32),
        **masks,
    }


def _cells_of(found: Any, boxes: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """Return which cell each detection comes from, [batch, max_boxes]; TensorFlow's suppression does not tell."""
    clipped = tf.clip_by_value(boxes, 0.0, 1.0)
    apart = tf.reduce_sum(tf.abs(found.nmsed_boxes[:, :, None] - clipped[:, None]), axis=-1)
    of_class = tf.gather(tf.transpose(scores, [0, 2, 1]), tf.cast(found.nmsed_classes, tf.int32), batch_dims=1)
    return tf.argmin(apart + tf.abs(found.nmsed_scores[..., None] - of_class), axis=-1, output_type=tf.int32)


class ServedDetector(tf.Module):
    """What a server runs: `encoded_image_string_tensor` to boxes.

    Args:
        model: Takes images `uint8 [batch, height, width, 3]` and ends in `detection_head`.
        class_ids: Ids of the classes in the label map, in the order of the logits.
        options: As `decode_detections` takes them.
    """

    def __init__(self, model: keras.Model, class_ids: Sequence[int], **options: Any) -> None:
        super().__init__()
        self._model, self._class_ids, self._options = model, list(class_ids), options

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="encoded_image_string_tensor")])
    def served_model(self, encoded_image_string_tensor: tf.Tensor) -> dict[str, tf.Tensor]:
        """Find objects in encoded images of any sizes; an empty string stands for a black image."""
        size = self._model.input_shape[1:3]
        images = tf.map_fn(
            lambda encoded: decoded_image(encoded, size),
            encoded_image_string_tensor,
            fn_output_signature=tf.TensorSpec([*size, 3], tf.uint8),
        )
        return decode_detections(self._model(images, training=False), self._class_ids, **self._options)
