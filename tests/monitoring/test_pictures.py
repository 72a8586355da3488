"""Confusion matrices, counted and drawn."""

import subprocess
import sys

import numpy as np
import pytest

from experiments_manager.monitoring.pictures import confusion_matrix, confusion_matrix_picture

pytest.importorskip("matplotlib")


def size(path):
    import matplotlib.image

    height, width, _ = matplotlib.image.imread(path).shape
    return height, width


def test_true_classes_are_rows_and_predicted_ones_columns():
    counts = confusion_matrix(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]


def test_small_integer_types_do_not_overflow():
    truth = np.full(3, 49, np.uint8)
    assert confusion_matrix(truth, truth, 50)[49, 49] == 3


def test_no_samples_give_zeros():
    assert confusion_matrix(np.array([]), np.array([]), 2).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("truth", "predicted", "problem"),
    [
        ([0, 1], [0], "two vectors of one length"),
        ([0, 3], [0, 1], r"truth: expected integers in 0..2, got 0..3"),
        ([0, 1], [0, -1], r"predicted: expected integers in 0..2, got -1..0"),
        ([0, 1], [0.5, 1.0], "predicted: expected integers"),
    ],
)
def test_what_cannot_be_counted_is_refused(truth, predicted, problem):
    with pytest.raises(ValueError, match=problem):
        confusion_matrix(np.array(truth), np.array(predicted), 3)


@pytest.mark.parametrize("classes", [2, 10])
def test_the_picture_is_a_png_about_as_high_as_wide(tmp_path, classes):
    truth = np.arange(100) % classes
    path = confusion_matrix_picture(truth, truth, [f"class {n}" for n in range(classes)], tmp_path / "matrix.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    height, width = size(path)
    assert 0.6 < height / width < 1.3
    assert height > 300


def test_more_classes_make_a_larger_picture(tmp_path):
    heights = []
    for classes in (2, 30):
        truth = np.arange(classes)
        path = confusion_matrix_picture(truth, truth, [str(n) for n in range(classes)], tmp_path / f"{classes}.png")
        heights.append(size(path)[0])
    assert heights[1] > 2 * heights[0]


def test_a_class_without_samples_is_drawn_without_warnings(tmp_path, recwarn):
    confusion_matrix_picture(np.array([0]), np.array([0]), ["cat", "dog"], tmp_path / "matrix.png")
    assert not recwarn.list


def test_importing_the_module_does_not_import_matplotlib():
    code = "import experiments_manager.monitoring.pictures, sys; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
