"""Mean average precision as COCO defines it, by pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments_manager.common.errors import UserError
from experiments_manager.common.installation import install_command
from experiments_manager.common.tables.problems import DataFileError
from experiments_manager.data.detection.coco import area_of
from experiments_manager.data.detection.object_masks import encoded_mask, image_masks

_NAMES = ("mAP", "mAP50", "mAP75", "mAP_small", "mAP_medium", "mAP_large", "AR1", "AR10", "AR100")


def coco_metrics(
    truth: Path | str, detections: Mapping[str, Mapping[str, np.ndarray]], *, masks: bool = False
) -> dict[str, float]:
    """Compare detections with a COCO JSON file.

    Args:
        truth: The file.
        detections: For each image of it, by `file_name`, what a served detector gave for it: `detection_boxes`
            [boxes, 4] as parts of the image (ymin, xmin, ymax, xmax), `detection_scores` [boxes], `detection_classes`
            [boxes], which are ids of categories, and `num_detections`; for masks, `detection_masks` as
            `image_masks` takes them.
        masks: Compare masks in the place of boxes.

    Returns:
        `mAP` (over intersections over union from 0.5 to 0.95), `mAP50`, `mAP75`, of small, medium and large objects,
        the recalls `AR1`, `AR10` and `AR100`, and `mAP <category>` of each; NaN where there is no such object.

    Raises:
        DataFileError: There are no detections for an image, or, for masks, an object without a mask.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        text = f"mAP is computed by pycocotools, which is missing. Run: {install_command('detection')}"
        raise UserError(text) from error
    content = json.loads(Path(truth).read_text(encoding="utf-8-sig"))
    if missing := [image["file_name"] for image in content["images"] if image["file_name"] not in detections]:
        raise DataFileError(
            f"There are no detections for {len(missing)} images, e.g. {missing[0]}. "
            "Expected the outputs of the detector for each, also where it found nothing."
        )
    if masks and (without := [each["id"] for each in content["annotations"] if "segmentation" not in each]):
        text = f"{truth}: {len(without)} annotations have no segmentation, e.g. {without[0]}"
        raise DataFileError(f"{text}. Expected one of each, to compare masks. Add them, or compare boxes.")
    as_rows = _mask_rows if masks else _rows
    rows = [row for image in content["images"] for row in as_rows(image, detections[image["file_name"]])]
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = {**content, "annotations": _numbered(content["annotations"])}
        reference.createIndex()
        found = _loaded(reference, rows)
        evaluation = COCOeval(reference, found, "segm" if masks else "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = np.where(evaluation.stats < 0, np.nan, evaluation.stats)
    metrics = dict(zip(_NAMES, values[:9].tolist(), strict=True))
    for place, category in enumerate(evaluation.params.catIds):
        precision = evaluation.eval["precision"][:, :, place, 0, -1]
        mean = float(precision[precision > -1].mean()) if (precision > -1).any() else float("nan")
        metrics[f"mAP {reference.cats[category]['name']}"] = mean
    return metrics


def _numbered(annotations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return annotations as pycocotools needs them: its id 0 means no match at all, and nothing may be left out."""
    return [
        {**annotation, "id": number, "iscrowd": annotation.get("iscrowd") or 0, "area": area_of(annotation)}
        for number, annotation in enumerate(annotations, start=1)
    ]


def _loaded(reference: Any, rows: Sequence[dict[str, Any]]) -> Any:
    """Return the detections as pycocotools wants them; it refuses an empty list."""
    if rows:
        return reference.loadRes(list(rows))
    empty = type(reference)()
    empty.dataset = {**reference.dataset, "annotations": []}
    empty.createIndex()
    return empty


def _rows(image: Mapping[str, Any], found: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    count = int(found["num_detections"])
    boxes = np.asarray(found["detection_boxes"], float)[:count]
    ymin, xmin, ymax, xmax = (boxes * np.tile([image["height"], image["width"]], 2)).T
    bboxes = np.stack([xmin, ymin, xmax - xmin, ymax - ymin], axis=1)
    scores, classes = found["detection_scores"][:count], found["detection_classes"][:count]
    return [
        {"image_id": image["id"], "category_id": int(category), "bbox": bbox.tolist(), "score": float(score)}
        for bbox, score, category in zip(bboxes, scores, classes, strict=True)
    ]


def _mask_rows(image: Mapping[str, Any], found: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    masks = image_masks(found, image["width"], image["height"])
    rows = _rows(image, found)
    for row, mask in zip(rows, masks, strict=True):
        del row["bbox"]  # by which pycocotools would compare
        row["segmentation"] = encoded_mask(mask)
    return rows
