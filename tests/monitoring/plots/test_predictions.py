"""Samples with truth and prediction, residuals, and arrays as pictures."""

import numpy as np
import pytest

from experiments_manager.events import Samples
from experiments_manager.monitoring.model_outputs import read_model_outputs
from experiments_manager.monitoring.plots import canvas
from experiments_manager.monitoring.plots.pictures import as_bytes, picture_input, scalar_input, series_input
from experiments_manager.monitoring.plots.predictions import CELLS, coloured, mistake_figure, prediction_figure
from experiments_manager.monitoring.plots.residuals import residual_figure

random = np.random.default_rng(0)


def answer(y, outputs, names=None):
    (found,) = read_model_outputs(Samples("validation", None, y, {"head": outputs}, {}), names)
    return found


def classifier(count=20, classes=3):
    truth = np.arange(count) % classes
    return answer(truth, np.full((count, classes), 1 / classes) + 0.1 * np.eye(classes)[0] - 0.1 / classes, list("abc"))


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def test_pictures_bear_the_predicted_class_how_sure_it_is_and_the_truth_where_that_is_another():
    figure = prediction_figure(random.random((20, 8, 8, 1)), classifier())
    assert len(figure.axes) == CELLS
    assert titles(figure)[:3] == ["a (40%)", "a (40%)\ntrue: b", "a (40%)\ntrue: c"]
    assert figure.texts[0].get_text() == f"first {CELLS} samples"


def test_the_surest_mistakes_come_first():
    scores = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.95, 0.05]])
    found = answer(np.array([1, 1, 1, 1]), scores, ["cat", "dog"])
    figure = mistake_figure(random.random((4, 8, 8, 3)), found)
    assert titles(figure) == ["cat (95%)\ntrue: dog", "cat (90%)\ntrue: dog", "cat (60%)\ntrue: dog"]


def test_without_mistakes_or_without_pictures_no_mistakes_are_drawn():
    right = answer(np.array([0, 1]), np.eye(2) * 0.8 + 0.1)
    assert mistake_figure(random.random((2, 8, 8, 3)), right) is None
    assert mistake_figure(random.random((20, 3)), classifier()) is None


@pytest.mark.parametrize("x", [random.random((20, 32, 1)), random.random((20, 5)), {"a": random.random((20, 2))}])
def test_classes_of_series_and_tables_are_drawn(x):
    figure = prediction_figure(x, classifier())
    assert len(figure.axes) == CELLS
    assert canvas.encode(figure, ".png")


def test_a_segmentation_shows_input_truth_and_prediction():
    found = answer(random.integers(0, 4, (6, 8, 8)), random.random((6, 8, 8, 4)), ["sky", "road", "car", "tree"])
    figure = prediction_figure(random.random((6, 8, 8, 3)), found)
    assert [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")] == [
        "input",
        "truth",
        "prediction",
    ]
    assert [text.get_text() for text in figure.legends[0].texts] == ["sky", "road", "car", "tree"]


def test_masks_have_a_colour_for_each_class_and_grey_for_what_does_not_count():
    picture = coloured(np.array([[[0, 1], [2, 255]]]), 3)
    colours = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    assert len(colours) == 4
    assert picture[0, 1, 1].tolist() == [128, 128, 128]
    assert coloured(np.arange(200).reshape(1, 10, 20), 200).shape == (1, 10, 20, 3)


def test_a_curve_is_drawn_over_its_one_input():
    x = np.array([[3.0], [1.0], [2.0]])
    figure = prediction_figure(x, answer(x * 2.5, x * 3.5))
    truth, said = figure.axes[0].lines
    assert truth.get_data()[0].tolist() == said.get_data()[0].tolist() == [1, 2, 3]
    assert said.get_data()[1].tolist() == [3.5, 7.0, 10.5]


def test_values_of_several_inputs_are_drawn_in_pairs():
    figure = prediction_figure(random.random((100, 3)), answer(random.random(100), random.random((100, 1))))
    assert figure.axes[0].get_title(loc="left") == "first 40 samples"


@pytest.mark.parametrize(
    ("y", "outputs"),
    [
        (random.random((6, 20, 2)), random.random((6, 20, 2))),
        (random.random((6, 8, 8, 3)), random.random((6, 8, 8, 3))),
        (random.random((6, 4, 4, 4, 2)), random.random((6, 4, 4, 4, 2))),
        (random.integers(0, 3, (6, 20)), random.random((6, 20, 3))),
        (np.array([[1, 1, 0]] * 6), random.random((6, 3))),
        (random.random((6, 12)), random.random((6, 12))),
    ],
)
def test_every_kind_of_answer_is_drawn(y, outputs, warned):
    for x in (random.random((6, 8, 8, 1)), random.random((6, 3))):
        assert canvas.encode(prediction_figure(x, answer(y, outputs)), ".png")
    assert warned() == []


def test_residuals_tell_fit_and_errors():
    truth = np.array([1.0, 2.0, 3.0, np.nan])
    figure = residual_figure(truth, truth + 0.5, "validation")
    pairs, errors = (axes.get_title(loc="left") for axes in figure.axes)
    assert pairs == "3 validation values, R² 0.625"
    assert errors == "RMSE 0.5, MAE 0.5"


@pytest.mark.parametrize("shape", [(1,), (3, 2), (4, 5, 6)])
def test_residuals_of_any_shape_are_drawn(shape, warned):
    canvas.encode(residual_figure(np.ones(shape), np.zeros(shape)), ".png")
    canvas.encode(residual_figure(np.full(shape, np.nan), np.zeros(shape)), ".png")
    assert warned() == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 255], np.uint8), [0, 255]),
        (np.array([0.0, 1.0]), [0, 255]),
        (np.array([0.0, 0.5]), [0, 128]),
        (np.array([-1.0, 1.0]), [0, 255]),
        (np.array([0.0, 255.0]), [0, 255]),
        (np.array([10.0, 12.5]), [0, 255]),
        (np.array([np.nan, 1.0]), [255, 255]),
    ],
)
def test_numbers_of_usual_ranges_become_bytes(values, expected):
    assert as_bytes(values.reshape(1, 1, 2, 1))[0, 0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("shape", "picture"),
    [((2, 8, 8), True), ((2, 8, 8, 1), True), ((2, 8, 8, 13), True), ((2, 32, 1), False), ((2, 100, 8), False)],
)
def test_pictures_are_told_from_series(shape, picture):
    x = random.random(shape)
    assert (picture_input(x) is not None) == picture
    assert (series_input(x) is None) == picture


def test_the_one_number_of_a_sample_is_found():
    assert scalar_input(np.ones((3, 1))).tolist() == [1, 1, 1]
    assert scalar_input({"a": np.ones(3)}).tolist() == [1, 1, 1]
    assert scalar_input([np.ones(3), np.ones(3)]) is None
