"""Curves over epochs, of one run and of several."""

import math

import numpy as np
import pytest

from experiments_manager.monitoring.plots import canvas
from experiments_manager.monitoring.plots.curves import (
    MOST_PANELS,
    LearningCurves,
    learning_curves,
    learning_rate_curve,
    metric_names,
    overlaid_curves,
)


def rows(epochs=5, **columns):
    columns = columns or {"loss": lambda n: 1 / n, "val_loss": lambda n: 2 / n}
    return [
        {"epoch": str(n), "step": str(10 * n), "learning_rate": "0.1"}
        | {name: repr(value(n)) for name, value in columns.items()}
        for n in range(1, epochs + 1)
    ]


def run(label="a run", best_epoch=4, **columns):
    return LearningCurves.from_rows(label, rows(**columns), best_epoch)


def lines(figure, panel=0):
    """Style, x and y of the lines with more than one point."""
    drawn = figure.axes[panel].lines
    return [(line.get_linestyle(), *map(list, line.get_data())) for line in drawn if len(line.get_xdata()) > 2]


def titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def labels(figure):
    return [text.get_text() for text in figure.legends[0].texts]


def test_rows_become_columns_with_nan_where_a_cell_is_empty():
    curves = LearningCurves.from_rows("", [{"epoch": "1", "loss": "0.5"}, {"epoch": "3", "accuracy": "nan"}])
    assert curves.epochs.tolist() == [1, 3]
    assert curves.columns["loss"].tolist()[0] == 0.5
    assert math.isnan(curves.columns["loss"][1])
    assert math.isnan(curves.columns["accuracy"][0])


def test_training_is_dashed_validation_solid_and_the_best_epoch_marked():
    figure = learning_curves(run())
    assert titles(figure) == ["loss"]
    epochs = [1, 2, 3, 4, 5]
    assert lines(figure) == [("--", epochs, [1 / n for n in epochs]), ("-", epochs, [2 / n for n in epochs])]
    dots = [line.get_data() for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [(list(x), list(y)) for x, y in dots] == [([4], [0.5])]
    assert labels(figure) == ["train", "validation", "best: epoch 4"]


def test_every_metric_has_a_panel_and_the_loss_the_first():
    def one(n):
        return 1.0

    curves = run(accuracy=one, loss=one, val_loss=one, val_only=one)
    assert metric_names([curves]) == ["loss", "accuracy", "only"]
    assert titles(learning_curves(curves)) == ["loss", "accuracy", "only"]


def test_more_metrics_than_there_is_room_for_are_told():
    many = {f"metric_{number}": lambda n: 1.0 for number in range(MOST_PANELS + 3)}
    figure = learning_curves(run(**many))
    assert len(figure.axes) == MOST_PANELS
    assert [text.get_text() for text in figure.texts] == ["3 further metrics are in metrics.csv"]


def test_runs_with_different_metrics_share_a_figure():
    figure = overlaid_curves([run("A", accuracy=lambda n: 0.5, loss=lambda n: 1.0), run("B")])
    assert titles(figure) == ["loss", "accuracy"]
    assert len(lines(figure, 0)) == 3
    assert len(lines(figure, 1)) == 1
    assert labels(figure) == ["A", "B", "train", "validation", "best epoch"]


def test_values_over_orders_of_magnitude_have_a_logarithmic_axis():
    assert learning_curves(run(loss=lambda n: 10.0**-n)).axes[0].get_yscale() == "log"
    assert learning_curves(run(loss=lambda n: 1.0 + n)).axes[0].get_yscale() == "linear"
    assert learning_curves(run(loss=lambda n: n - 2.0)).axes[0].get_yscale() == "linear"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_gaps(value, warned):
    figure = learning_curves(run(loss=lambda n: value))
    assert [text.get_text() for text in figure.axes[0].texts] == ["no finite value"]
    canvas.encode(figure, ".png")
    assert warned() == []


def test_a_single_epoch_is_a_dot():
    figure = learning_curves(LearningCurves.from_rows("", rows(epochs=1), 1))
    assert {line.get_marker() for line in figure.axes[0].lines[:2]} == {"o"}
    assert figure.axes[0].get_xlim() == (0, 2)


def test_a_run_without_epochs_can_be_drawn():
    nothing = LearningCurves.from_rows("", [])
    for figure in (learning_curves(nothing), learning_rate_curve(nothing), overlaid_curves([nothing, run()])):
        assert canvas.encode(figure, ".svg")


def test_the_learning_rate_is_drawn():
    assert lines(learning_rate_curve(run()))[0] == ("-", [1, 2, 3, 4, 5], [0.1] * 5)


@pytest.mark.parametrize("ending", canvas.FORMATS)
def test_the_same_figure_is_the_same_file(ending):
    first, second = (canvas.encode(learning_curves(run()), ending) for _ in range(2))
    assert first == second


def test_drawing_leaves_the_settings_of_matplotlib_as_they_were():
    import matplotlib

    before = dict(matplotlib.rcParams)
    canvas.encode(learning_curves(run()), ".svg")
    assert dict(matplotlib.rcParams) == before


def test_an_unknown_ending_is_refused():
    with pytest.raises(ValueError, match=r"Expected one of .png, .svg, .pdf, got '.gif'"):
        canvas.encode(learning_curves(run()), ".gif")


def test_text_in_an_svg_stays_text():
    svg = canvas.encode(overlaid_curves([run("A  x=<1> & y=$2$"), run("B")]), ".svg").decode()
    assert "A  x=&lt;1&gt; &amp; y=$2$" in svg


def test_many_curves_are_drawn_without_an_end_of_colours():
    assert len(lines(overlaid_curves([run(str(n)) for n in range(25)]))) == 50
    assert np.isfinite(overlaid_curves([run("x" * 200)] * 3).get_size_inches()).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "values", [[-1.7e308, 1.7e308], [1e-300, 1.7e308], [1.7e308] * 2, [5e-324, 1e300], [0, 5e-324]]
)
def test_numbers_that_no_axis_holds_are_left_out(values):
    columns = dict.fromkeys(("loss", "learning_rate"), np.array(values))
    curves = LearningCurves("a run", np.array([1, 2]), columns, 1)
    for figure in (learning_curves(curves), learning_rate_curve(curves)):
        assert canvas.encode(figure, ".png").startswith(b"\x89PNG")


@pytest.mark.parametrize("most", [60.0, 150.0, 3e4, 1e9])
def test_a_logarithmic_axis_has_several_labelled_ticks_whatever_it_spans(most):
    figure = learning_curves(run(loss=lambda n: 1.1 * (most / 1.1) ** ((n - 1) / 4)))
    figure.canvas.draw()
    (axes,) = figure.axes[:1]
    low, high = axes.get_ylim()
    labelled = [
        label.get_text()
        for tick, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
        if low <= tick <= high and label.get_text()
    ]
    assert 3 <= len(labelled) <= 12


@pytest.mark.parametrize(("low", "high"), [(0.9, 54), (0.011, 0.6), (1e-3, 0.9), (2e-5, 0.03), (1e-9, 3)])
@pytest.mark.parametrize("name", ["xaxis", "yaxis"])
def test_a_logarithmic_axis_has_some_labels_however_few_decades_it_spans(low, high, name):
    figure = canvas.new_figure(3.3, 2.1)
    axes = canvas.place(figure, 0.6, 0.4, 2.4, 1.4)
    axes.plot([low, high], [low, high])
    axis = getattr(axes, name)
    canvas.make_logarithmic(axis, low, high)
    canvas.encode(figure, ".png")
    first, last = axis.get_view_interval()
    labelled = [place for place in axis.get_ticklocs() if first <= place <= last]
    assert 3 <= len(labelled) <= 12
