"""Confusion matrices, counted and drawn."""

import subprocess
import sys

import numpy as np
import pytest

from experiments_manager.monitoring.plots import canvas
from experiments_manager.monitoring.plots.confusion import MOST_NUMBERS, confusion_figure, confusion_matrix


def drawn(truth, predicted, names, **options):
    return confusion_figure(confusion_matrix(np.array(truth), np.array(predicted), len(names)), names, **options)


def numbers(figure):
    return [text.get_text() for text in figure.axes[0].texts]


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
def test_the_picture_is_a_png_about_as_high_as_wide(classes):
    figure = drawn(np.arange(100) % classes, np.arange(100) % classes, [f"class {n}" for n in range(classes)])
    assert canvas.encode(figure, ".png").startswith(b"\x89PNG")
    width, height = figure.get_size_inches()
    assert 0.6 < height / width < 1.3


def test_counts_and_shares_of_the_true_class_are_told():
    truth, predicted = [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]
    names = ["cat", "dog"]
    assert numbers(drawn(truth, predicted, names)) == ["2", "1", "3"]
    assert numbers(drawn(truth, predicted, names, normalised=True)) == ["67", "33", "100"]
    title = drawn(truth, predicted, names, of="validation").axes[0].get_title(loc="left")
    assert title == "5 of 6 validation samples\nright (83.33%)"


def test_few_mistakes_among_many_are_not_rounded_away():
    truth = np.zeros(1001, int)
    predicted = truth.copy()
    predicted[0] = 1
    assert numbers(drawn(truth, predicted, ["cat", "dog"], normalised=True)) == [">99", "<1"]


def test_names_of_classes_are_written_as_they_are():
    figure = drawn([0, 1], [0, 1], ["$x_1$ & <b>", "dog"])
    svg = canvas.encode(figure, ".svg").decode()
    assert "$x_1$ &amp; &lt;b&gt;" in svg


def test_more_classes_make_a_larger_picture():
    heights = [drawn(range(n), range(n), [str(k) for k in range(n)]).get_size_inches()[1] for n in (2, 30)]
    assert heights[1] > 2 * heights[0]


def test_a_thousand_classes_are_drawn_in_colours_alone_and_no_larger_than_a_sheet():
    classes = 1000
    figure = drawn(range(classes), range(classes), [f"class {n}" for n in range(classes)])
    assert max(figure.get_size_inches()) < 18
    assert numbers(figure) == []
    assert len(numbers(drawn(range(MOST_NUMBERS), range(MOST_NUMBERS), ["n"] * MOST_NUMBERS))) == MOST_NUMBERS


def test_a_class_without_samples_is_drawn_without_warnings(warned):
    canvas.encode(drawn([0], [0], ["cat", "dog"]), ".png")
    assert warned() == []


def test_importing_the_module_does_not_import_matplotlib():
    code = "import experiments_manager.monitoring.plots.confusion, sys; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
