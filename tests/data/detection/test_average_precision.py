"""Detections against COCO JSON, and drawn."""

import json
import math

import numpy as np
import pytest
from PIL import Image

from experiments_manager.data import DataFileError
from experiments_manager.data.detection import coco_metrics, draw_detections
from experiments_manager.data.detection.object_masks import encoded_mask


@pytest.fixture
def truth(tmp_path):
    """Two images of 200 x 100 pixels; the first with a cat (3) and a dog (8), the second with a dog."""
    boxes = [(1, 3, [20, 10, 60, 50]), (1, 8, [120, 30, 40, 60]), (2, 8, [50, 20, 100, 60])]
    content = {
        "images": [{"id": number, "file_name": f"{number}.png", "width": 200, "height": 100} for number in (1, 2)],
        "annotations": [
            {"id": number, "image_id": image, "category_id": kind, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for number, (image, kind, box) in enumerate(boxes, start=1)
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}],
    }
    file = tmp_path / "test.json"
    file.write_text(json.dumps(content))
    return file


def found(*boxes):
    """What a detector gives, padded to four boxes."""
    padded = [*boxes, *[([0, 0, 0, 0], 0, 0)] * (4 - len(boxes))]
    corners, classes, scores = (np.array(part, np.float32) for part in zip(*padded, strict=True))
    return {
        "detection_boxes": corners,
        "detection_classes": classes,
        "detection_scores": scores,
        "num_detections": np.float32(len(boxes)),
    }


CAT, DOG, OTHER_DOG = [0.1, 0.1, 0.6, 0.4], [0.3, 0.6, 0.9, 0.8], [0.2, 0.25, 0.8, 0.75]


def test_what_is_found_exactly_counts_in_full(truth):
    metrics = coco_metrics(truth, {"1.png": found((CAT, 3, 0.9), (DOG, 8, 0.8)), "2.png": found((OTHER_DOG, 8, 0.7))})
    assert metrics["mAP"] == pytest.approx(1)
    assert (metrics["mAP cat"], metrics["mAP dog"]) == (pytest.approx(1), pytest.approx(1))
    assert math.isnan(metrics["mAP_small"]), "there are no small objects"


def test_boxes_that_are_a_bit_off_count_up_to_their_overlap(truth):
    nearly = [0.1, 0.1, 0.6, 0.36]  # IoU 0.867
    metrics = coco_metrics(truth, {"1.png": found((nearly, 3, 0.9)), "2.png": found()})
    assert metrics["mAP cat"] == pytest.approx(0.8)
    assert metrics["mAP dog"] == 0
    assert metrics["mAP"] == pytest.approx(0.4)


def test_a_wrong_class_counts_nothing(truth):
    assert coco_metrics(truth, {"1.png": found((CAT, 8, 0.9)), "2.png": found()})["mAP"] == 0


def test_nothing_found_is_no_error(truth):
    assert coco_metrics(truth, {"1.png": found(), "2.png": found()})["mAP"] == 0


def test_objects_counted_from_0_with_nothing_but_a_box_count_as_others_do(truth):
    outputs = {"1.png": found((CAT, 3, 0.9)), "2.png": found((OTHER_DOG, 8, 0.7))}
    expected = coco_metrics(truth, outputs)
    content = json.loads(truth.read_text())
    for number, annotation in enumerate(content["annotations"]):
        annotation["id"] = number
        del annotation["area"], annotation["iscrowd"]
    truth.write_text(json.dumps(content), encoding="utf-8-sig")
    assert coco_metrics(truth, outputs) == pytest.approx(expected, nan_ok=True)


def test_an_image_that_was_left_out_is_an_error(truth):
    with pytest.raises(DataFileError, match=r"no detections for 1 images, e.g. 2.png"):
        coco_metrics(truth, {"1.png": found()})


def test_boxes_are_drawn_where_they_are_and_only_if_likely():
    image = Image.new("RGB", (200, 100))
    drawn = np.asarray(draw_detections(image, found((CAT, 3, 0.9), (DOG, 8, 0.3)), {3: "cat"}))
    assert drawn[30, 20].any()
    assert drawn[60, 50].any()
    assert not drawn[:, 100:].any(), "the dog is not likely enough"
    assert not np.asarray(image).any(), "the image given stays as it is"


def masked(outputs, part=1.0):
    """The same detections with masks that fill a part of their boxes, from the left."""
    masks = np.zeros((4, 20, 20), np.float32)
    masks[:, :, : round(20 * part)] = 1
    return {**outputs, "detection_masks": masks}


@pytest.fixture
def masked_truth(truth):
    """The same truth; each object fills its box."""
    content = json.loads(truth.read_text())
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        mask = np.zeros((100, 200), bool)
        mask[y : y + height, x : x + width] = True
        annotation["segmentation"] = encoded_mask(mask)
    truth.write_text(json.dumps(content))
    return truth


@pytest.mark.parametrize(("part", "expected"), [(1.0, 1.0), (0.8, 0.7), (0.4, 0.0)])
def test_masks_count_up_to_their_overlap(masked_truth, part, expected):
    outputs = {"1.png": found((CAT, 3, 0.9), (DOG, 8, 0.8)), "2.png": found((OTHER_DOG, 8, 0.7))}
    outputs = {name: masked(each, part) for name, each in outputs.items()}
    assert coco_metrics(masked_truth, outputs, masks=True)["mAP"] == pytest.approx(expected, abs=1e-6)
    assert coco_metrics(masked_truth, outputs)["mAP"] == pytest.approx(1), "the boxes are still exact"


def test_masks_are_not_compared_with_boxes(truth):
    outputs = {"1.png": masked(found()), "2.png": masked(found())}
    with pytest.raises(DataFileError, match="3 annotations have no segmentation, e.g. 1"):
        coco_metrics(truth, outputs, masks=True)


def test_masks_are_drawn_over_what_stays_visible():
    image = Image.new("RGB", (200, 100), "gray")
    drawn = np.asarray(draw_detections(image, masked(found((CAT, 3, 0.9)), 0.5), {3: "cat"})).astype(int)
    assert np.abs(drawn[30, 35] - 128).sum() > 30, "in the left half of the box"
    assert drawn[30, 65].tolist() == [128] * 3, "in its right half"
