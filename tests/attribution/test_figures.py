"""Maps are drawn beside what they are of, whatever that is."""

import numpy as np
import pytest

from experiments_manager.attribution.explanation import Explanation, MethodResult
from experiments_manager.attribution.figures import ROWS, curve_figure, map_figure
from experiments_manager.attribution.map_quality import STEPS, Curves
from experiments_manager.attribution.scored_output import Question, ScoredOutput
from experiments_manager.attribution.targets import Target
from experiments_manager.monitoring.plots.canvas import encode


def explained(shape, *, has_channels, regions=None, samples=3, truth=1):
    """Two methods on samples of a shape, all told as class 1."""
    generator = np.random.default_rng(0)
    values = generator.uniform(size=(samples, *shape)).astype("float32")
    output = ScoredOutput(None, values, 0, 0, has_channels)
    regions = np.ones(samples, np.float32) if regions is None else regions
    question = Question(values, [], np.ones(samples, np.int32), regions, values)
    target = Target(output, question, "x", "kind", ("no", "yes"), np.full(regions.shape, truth))
    curves = Curves(np.linspace(1, 0, STEPS + 1), np.linspace(0, 1, STEPS + 1))
    maps = generator.normal(size=(samples, *output.positions(values))).astype("float32")
    methods = {name: MethodResult(maps, curves, 0.0) for name in ("grad-cam", "occlusion")}
    return Explanation(target, methods, curves, {})


@pytest.mark.parametrize(
    ("shape", "has_channels"),
    [((4,), False), ((40, 2), True), ((9, 12), False), ((9, 12, 3), True), ((5, 6, 7, 1), True)],
    ids=["table", "series", "picture without channels", "picture", "volume"],
)
def test_a_row_has_the_input_and_a_map_a_method(shape, has_channels):
    figure = map_figure(explained(shape, has_channels=has_channels))
    assert len(figure.axes) == 3 * 3
    assert [axes.get_title(loc="left") for axes in figure.axes[:3]] == ["x", "grad-cam", "occlusion"]
    assert encode(figure, ".png").startswith(b"\x89PNG")


def test_many_samples_are_drawn_in_part():
    assert len(map_figure(explained((4,), has_channels=False, samples=40)).axes) == 3 * ROWS


def test_a_wrong_class_is_shown_with_the_true_one():
    texts = [text.get_text() for text in map_figure(explained((4,), has_channels=False, truth=0)).axes[0].texts]
    assert texts == ["yes (true: no)"]


def test_a_line_runs_round_the_region_of_a_segmentation():
    regions = np.zeros((3, 9, 12), np.float32)
    regions[:, 2:4, 2:5] = 1
    with_region = map_figure(explained((9, 12, 3), has_channels=True, regions=regions)).axes[0]
    without = map_figure(explained((9, 12, 3), has_channels=True)).axes[0]
    assert len(with_region.collections) == len(without.collections) + 1


def test_the_curves_bear_their_areas():
    figure = curve_figure(explained((4,), has_channels=False))
    for axes in figure.axes:
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        assert labels == ["grad-cam 0.50", "occlusion 0.50", "random order 0.50"]
