"""Boxes and masks of objects in images: from CSV to COCO JSON to TFRecord, read for training, compared and drawn."""

from experiments_manager.data.detection.average_precision import coco_metrics
from experiments_manager.data.detection.conversion import csv_to_coco
from experiments_manager.data.detection.drawing import draw_detections
from experiments_manager.data.detection.object_masks import image_masks
from experiments_manager.data.detection.output import SplitSummary
from experiments_manager.data.detection.pbtxt_label_maps import read_label_map
from experiments_manager.data.detection.splits import split_images
from experiments_manager.data.detection.tfrecord_pipeline import (
    decoded_image,
    read_detection_records,
    read_encoded_images,
)
from experiments_manager.data.detection.tfrecords import coco_to_tfrecord

__all__ = [
    "SplitSummary",
    "coco_metrics",
    "coco_to_tfrecord",
    "csv_to_coco",
    "decoded_image",
    "draw_detections",
    "image_masks",
    "read_detection_records",
    "read_encoded_images",
    "read_label_map",
    "split_images",
]
