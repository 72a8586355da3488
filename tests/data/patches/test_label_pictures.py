"""Label maps as pictures, and their scores."""

import numpy as np
import pytest
from PIL import Image

from experiments_manager.data.patches import class_iou, confusion_matrix, default_colours, mean_iou, write_label_map


def test_a_label_map_shows_colours_and_holds_classes(tmp_path):
    labels = np.array([[0, 1], [2, 255]], np.uint8)
    write_label_map(tmp_path / "map.png", labels, [(0, 0, 0), (255, 0, 0), (0, 255, 0)])
    with Image.open(tmp_path / "map.png") as image:
        assert np.array_equal(np.asarray(image), labels)
        seen = np.asarray(image.convert("RGB")).tolist()
    assert seen == [[[0, 0, 0], [255, 0, 0]], [[0, 255, 0], [255, 255, 255]]]


@pytest.mark.parametrize("classes", [1, 2, 30])
def test_each_class_has_a_colour_of_its_own(classes):
    assert len(set(default_colours(classes))) == classes


def test_iou_counts_hits_against_all_that_is_there_or_said():
    labels = np.array([0, 0, 0, 1, 1, 255])
    confusion = confusion_matrix(labels, np.array([0, 0, 1, 1, 1, 0]), 3)
    assert confusion.tolist() == [[2, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert class_iou(confusion)[:2].tolist() == pytest.approx([2 / 3, 2 / 3])
    assert np.isnan(class_iou(confusion)[2])
    assert mean_iou(confusion) == pytest.approx(2 / 3)
