"""What a detector's output for each cell should be, and how far it is from that."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from experiments_manager.models.detection.masks import mask_loss, split_masks

_EPSILON = 1e-6


@keras.saving.register_keras_serializable("experiments_manager")
class DetectionLoss(keras.losses.Loss):
    """A focal loss on the heat map of middles (Zhou et al. 2019), and a generalised IoU loss on the boxes around them.

    With prototypes, the cross-entropy of masks inside of their boxes (Bolya et al. 2019) is added.

    Targets are made of the boxes in the graph, so that images may be changed at random together with plain boxes.

    Args:
        box_weight: Weight of the loss on boxes.
        spread: Width of the bell around a middle, in parts of the box's sides.
        prototypes: Number of prototypes that the model's masks are sums of; 0 for a model without masks.
        mask_weight: Weight of the loss on masks.
        reduction: As for all losses of Keras.
        name: As for all losses of Keras.
    """

    def __init__(
        self,
        box_weight: float = 2.0,
        spread: float = 0.12,
        prototypes: int = 0,
        mask_weight: float = 1.0,
        reduction: str = "sum_over_batch_size",
        name: str = "detection_loss",
    ) -> None:
        super().__init__(name=name, reduction=reduction)
        self.box_weight, self.spread = box_weight, spread
        self.prototypes, self.mask_weight = prototypes, mask_weight

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each image.

        Args:
            y_true: Boxes of shape [batch, boxes, 5]: ymin, xmin, ymax and xmax in parts of the image, and the class,
                below 0 where there is no box. For masks, of shape [batch, boxes, 5 + 2 rows * 2 columns]: each box is
                followed by its mask, the part of each cell of a prototype that the object covers.
            y_pred: What `detection_head` gives.

        Returns:
            Of shape [batch].

        Raises:
            ValueError: There are not as many values for a box as the output calls for.
        """
        y_pred, coefficients, prototypes = split_masks(y_pred, self.prototypes)
        _require_width(y_true, prototypes)
        rows, columns, classes = y_pred.shape[1], y_pred.shape[2], y_pred.shape[3] - 4
        y_true = ops.cast(y_true, y_pred.dtype)
        boxes = y_true[..., :4] * ops.convert_to_tensor([rows, columns, rows, columns], y_pred.dtype)
        is_box = ops.cast(y_true[..., 4] >= 0, y_pred.dtype)
        kinds = ops.one_hot(ops.cast(y_true[..., 4], "int32"), classes, dtype=y_pred.dtype)  # zeros below 0
        bells, middles = bells_of(boxes, is_box, rows, columns, self.spread)
        heat = ops.minimum(ops.einsum("nrcb,nbk->nrck", bells, kinds), 1.0)
        hits = ops.minimum(ops.einsum("nrcb,nbk->nrck", middles, kinds), 1.0)
        count = ops.maximum(ops.sum(is_box, axis=1), 1.0)
        focal = ops.sum(focal_loss(heat, hits, y_pred[..., :classes]), axis=(1, 2, 3)) / count
        nearest = ops.argmax(bells, axis=-1)
        targets = ops.einsum("nrcb,nbs->nrcs", ops.one_hot(nearest, bells.shape[-1], dtype=y_pred.dtype), boxes)
        weights = ops.max(bells, axis=-1)
        weights = ops.where(weights > 0.3, weights, ops.zeros_like(weights))
        missed = 1.0 - generalised_iou(targets, boxes_of_cells(y_pred[..., classes:]))
        box_loss = ops.sum(weights * missed, axis=(1, 2)) / ops.maximum(ops.sum(weights, axis=(1, 2)), 1.0)
        loss = focal + self.box_weight * box_loss
        if self.prototypes:
            masks = ops.reshape(y_true[..., 5:], (-1, y_true.shape[1], *prototypes.shape[1:3]))
            loss += self.mask_weight * mask_loss(masks, boxes, bells, coefficients, prototypes)
        return loss

    def get_config(self) -> dict[str, Any]:
        """Return what makes it again."""
        own = ("box_weight", "spread", "prototypes", "mask_weight")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def _require_width(y_true: Any, prototypes: Any) -> None:
    _, height, width, count = prototypes.shape
    found = y_true.shape[-1]
    if count and found != 5 + height * width:
        raise ValueError(
            f"Each box has {found} values. Expected {5 + height * width}: 5 of the box and {height} x {width} of its "
            f"mask. Read the records with mask_size=({height}, {width})."
        )
    if not count and found != 5:
        raise ValueError(
            f"Each box has {found} values. Expected 5, since the loss has no prototypes. Read the records without "
            "mask_size, or give the loss the prototypes of the model."
        )


def bells_of(boxes: Any, is_box: Any, rows: int, columns: int, spread: float) -> tuple[Any, Any]:
    """Return how near each cell is to the middle of each box, 1 to 0, and which cell holds it.

    Args:
        boxes: In cells, [batch, boxes, 4]: ymin, xmin, ymax and xmax.
        is_box: 1 or 0, [batch, boxes].
        rows: Cells of a column.
        columns: Cells of a row.
        spread: Width of the bell, in parts of the box's sides.

    Returns:
        Two tensors [batch, rows, columns, boxes].
    """

    def along(axis: int, cells: int) -> tuple[Any, Any]:
        low, high = boxes[..., axis], boxes[..., axis + 2]
        middle = ops.clip(ops.floor((low + high) / 2), 0, cells - 1)[:, None]  # [batch, 1, boxes]
        width = ops.maximum(spread * (high - low), 0.5)[:, None]
        away = ops.arange(cells, dtype=boxes.dtype)[None, :, None] - middle
        return ops.exp(-ops.square(away / width) / 2), ops.cast(away == 0, boxes.dtype)

    (down, in_row), (across, in_column) = along(0, rows), along(1, columns)
    is_box = is_box[:, None, None]
    return down[:, :, None] * across[:, None] * is_box, in_row[:, :, None] * in_column[:, None] * is_box


def focal_loss(heat: Any, hits: Any, logits: Any) -> Any:
    """Return the loss of each cell and class: cells near a middle count less when they are taken for one."""
    likely, unlikely = ops.log_sigmoid(logits), ops.log_sigmoid(-logits)
    score = ops.sigmoid(logits)
    missed = hits * ops.square(1.0 - score) * likely
    invented = (1.0 - hits) * ops.power(1.0 - heat, 4) * ops.square(score) * unlikely
    return -(missed + invented)


def boxes_of_cells(sides: Any) -> Any:
    """Turn distances from the middle of each cell into boxes, in cells: ymin, xmin, ymax and xmax.

    Args:
        sides: Of shape [batch, rows, columns, 4].
    """
    y = ops.arange(sides.shape[1], dtype=sides.dtype)[None, :, None] + 0.5
    x = ops.arange(sides.shape[2], dtype=sides.dtype)[None, None, :] + 0.5
    up, left, down, right = (sides[..., side] for side in range(4))
    return ops.stack([y - up, x - left, y + down, x + right], axis=-1)


def generalised_iou(one: Any, other: Any) -> Any:
    """Return the intersection over union of boxes, less the part of the box around both that neither fills.

    As in Rezatofighi et al. 2019.

    Args:
        one: Of shape […, 4]: ymin, xmin, ymax and xmax.
        other: Of the same shape.

    Returns:
        From -1 to 1, of shape […].
    """

    def area(box: Any) -> Any:
        return ops.maximum(box[..., 2] - box[..., 0], 0.0) * ops.maximum(box[..., 3] - box[..., 1], 0.0)

    def joined(low: Any, high: Any) -> Any:
        return area(ops.concatenate([low(one[..., :2], other[..., :2]), high(one[..., 2:], other[..., 2:])], axis=-1))

    shared = joined(ops.maximum, ops.minimum)
    union = area(one) + area(other) - shared
    around = joined(ops.minimum, ops.maximum)
    return shared / (union + _EPSILON) - (around - union) / (around + _EPSILON)
