"""An anchor-free one-stage detector, of masks too: the parts of its model, its loss, and how it is served."""

from experiments_manager.models.detection.loss import DetectionLoss, generalised_iou
from experiments_manager.models.detection.network import detection_head, mask_prototypes, residual_encoder, top_down
from experiments_manager.models.detection.serving import ServedDetector, decode_detections

__all__ = [
    "DetectionLoss",
    "ServedDetector",
    "decode_detections",
    "detection_head",
    "generalised_iou",
    "mask_prototypes",
    "residual_encoder",
    "top_down",
]
