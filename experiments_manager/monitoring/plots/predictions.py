"""Samples as a person looks at them: what went in, what is true, and what the model said."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments_manager.monitoring.model_outputs import ModelOutput
from experiments_manager.monitoring.plots import canvas
from experiments_manager.monitoring.plots.pictures import as_bytes, picture_input, scalar_input, series_input

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def coloured(masks: np.ndarray, classes: int) -> np.ndarray:
    """Give each class a colour; class 0 is dark where there are more than two, and what does not count is grey.

    Args:
        masks: Integers [n, height, width].
        classes: Number of classes; beyond the length of the palette, colours follow a scale.

    Returns:
        Bytes [n, height, width, 3].
    """
    colours = class_colours(classes)
    unknown = (masks < 0) | (masks >= classes)
    picture = colours[np.where(unknown, 0, masks)]
    picture[unknown] = 128
    return picture


def class_colours(classes: int) -> np.ndarray:
    """Give the colour of each class, bytes [classes, 3]; two classes are black and white."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    if classes == 2:
        return np.array([[20, 22, 28], [245, 245, 245]], np.uint8)
    if classes > len(canvas.PALETTE) + 1:
        return (255 * colormaps["nipy_spectral"](np.linspace(0, 1, classes))[:, :3]).astype(np.uint8)
    chosen = [(0.08, 0.09, 0.11), *map(to_rgb, canvas.PALETTE)][:classes]
    return (255 * np.array(chosen)).astype(np.uint8)


def class_legend(figure: Figure, names: Sequence[str]) -> None:
    """Explain the colours of the classes at the foot of a figure."""
    from matplotlib.patches import Patch

    colours = class_colours(len(names)) / 255
    handles = [
        Patch(facecolor=colour, edgecolor=canvas.FAINT, linewidth=0.5, label=canvas.shortened(name, 18))
        for colour, name in zip(colours, names, strict=True)
    ]
    figure.legend(handles=handles, loc="lower left", ncols=4, handlelength=1.0, fontsize=7.5, columnspacing=1.0)


CELLS = 15
ROWS = 5
_CURVE_POINTS = 2000
_PAIRS = 40
_BARS = 5


def prediction_figure(x: Any, answer: ModelOutput) -> Figure:
    """Draw the first samples with truth and prediction, in the way that suits them.

    Args:
        x: Inputs, nested, the first axis counting samples.
        answer: Truth and prediction of one head.
    """
    draw = {
        "classes": _classes,
        "labels": _labels,
        "masks": _masks if answer.truth.ndim == 3 else _steps,
        "values": _values,
        "series": _series,
        "pictures": _pictures if answer.truth.ndim == 4 and answer.truth.shape[-1] <= 4 else _values,
    }[answer.kind]
    with canvas.figure_style():
        return draw(x, answer)


def mistake_figure(x: Any, answer: ModelOutput) -> Figure | None:
    """Draw the mistakes that a classifier of pictures was surest of; `None` where there are none to draw."""
    images = picture_input(x)
    if answer.kind != "classes" or images is None or answer.probabilities is None:
        return None
    wrong = np.flatnonzero(answer.truth != answer.predicted)
    if not len(wrong):
        return None
    surest = wrong[np.argsort(-answer.probabilities.max(-1)[wrong], kind="stable")][:CELLS]
    with canvas.figure_style():
        return _picture_grid(images, answer, surest, f"{len(surest)} surest of {len(wrong):,} mistakes")


def _classes(x: Any, answer: ModelOutput) -> Figure:
    chosen = np.arange(min(CELLS, len(answer.truth)))
    images, series = picture_input(x), series_input(x)
    if images is not None:
        return _picture_grid(images, answer, chosen, f"first {len(chosen)} samples")
    if series is not None:
        return canvas.grid(chosen, lambda axes, n: _draw_series_of_class(axes, series[n], answer, n), cell=(1.75, 1.15))
    return canvas.grid(chosen, lambda axes, n: _draw_scores(axes, answer, n), cell=(1.2, 0.95), gap=0.85)


def _picture_grid(images: np.ndarray, answer: ModelOutput, chosen: np.ndarray, title: str) -> Figure:
    def draw(axes: Axes, sample: int) -> None:
        canvas.show(axes, images[sample])
        _title_with_classes(axes, answer, sample)

    return canvas.grid(chosen, draw, cell=canvas.fitted(images, 1.4), title=title)


def _title_with_classes(axes: Axes, answer: ModelOutput, sample: int) -> None:
    true, said = int(answer.truth[sample]), int(answer.predicted[sample])
    sure = f" ({answer.probabilities[sample, said]:.0%})" if answer.probabilities is not None else ""
    text = f"{canvas.shortened(answer.class_names[said], 16)}{sure}"
    if true != said:
        text += f"\ntrue: {canvas.shortened(answer.class_names[true], 16)}"
    colour = canvas.RIGHT if true == said else canvas.WRONG
    axes.set_title(text, fontsize=8, fontweight="normal", color=colour, loc="center", pad=3)


def _draw_series_of_class(axes: Axes, series: np.ndarray, answer: ModelOutput, sample: int) -> None:
    for channel in range(min(series.shape[1], 4)):
        axes.plot(series[:, channel], color=canvas.colour(channel), linewidth=1)
    axes.set_xticks([])
    axes.set_yticks([])
    _title_with_classes(axes, answer, sample)


def _draw_scores(axes: Axes, answer: ModelOutput, sample: int) -> None:
    """Draw the likeliest classes as bars, the true one among them."""
    if answer.probabilities is None:
        axes.set_axis_off()
        _title_with_classes(axes, answer, sample)
        return
    scores, true = answer.probabilities[sample], int(answer.truth[sample])
    top = [int(n) for n in np.argsort(-scores, kind="stable")[:_BARS]]
    top = top if true in top else [*top[:-1], true]
    right = true == int(answer.predicted[sample])
    colours = [(canvas.RIGHT if right else canvas.WRONG) if n == top[0] else canvas.FAINT for n in top]
    axes.barh(range(len(top)), scores[top], color=colours, height=0.7)
    names = [f"{'▸ ' if n == true else ''}{canvas.shortened(answer.class_names[n], 12)}" for n in top]
    axes.set_yticks(range(len(top)), names, fontsize=7)
    axes.set_xticks([])
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[["bottom", "left"]].set_visible(False)


def _labels(x: Any, answer: ModelOutput) -> Figure:
    """Draw how often each label was found, missed and given by mistake."""
    truth, said = answer.truth.astype(bool), answer.predicted.astype(bool)
    parts = {"found": truth & said, "missed": truth & ~said, "given by mistake": ~truth & said}
    colours = (canvas.RIGHT, canvas.FAINT, canvas.WRONG)
    names = [canvas.shortened(name, 28) for name in answer.class_names][:60]
    margin, height = 0.2 + canvas.text_width(names, 8), max(1.2, 0.2 * len(names))
    figure = canvas.new_figure(margin + 4.6, height + 1.05)
    axes = canvas.place(figure, margin, 0.65, 4.4, height)
    left = np.zeros(len(names))
    for (name, part), colour in zip(parts.items(), colours, strict=True):
        counts = part.sum(0)[: len(names)]
        axes.barh(range(len(names)), counts, left=left, color=colour, height=0.7, label=name)
        left += counts
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_title(f"labels of {len(truth):,} samples")
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.28 / height), ncols=3)
    return figure


def _masks(x: Any, answer: ModelOutput) -> Figure:
    images = picture_input(x)
    rows = min(ROWS, len(answer.truth))
    truth, said = (coloured(classes[:rows], len(answer.class_names)) for classes in (answer.truth, answer.predicted))
    columns = ([("input", images)] if images is not None else []) + [("truth", truth), ("prediction", said)]
    figure = canvas.table(columns, rows, legend=len(answer.class_names) <= 12)
    if len(answer.class_names) <= 12:
        class_legend(figure, answer.class_names)
    return figure


def _pictures(x: Any, answer: ModelOutput) -> Figure:
    images = picture_input(x)
    rows = min(ROWS, len(answer.truth))
    both = as_bytes(np.concatenate([answer.truth[:rows], answer.predicted[:rows]]))  # on one scale
    columns = ([("input", images)] if images is not None else []) + [
        ("truth", both[:rows]),
        ("prediction", both[rows:]),
    ]
    return canvas.table(columns, rows)


def _steps(x: Any, answer: ModelOutput) -> Figure:
    """Draw classes step by step."""

    def draw(axes: Axes, sample: int) -> None:
        axes.step(range(answer.truth.shape[1]), answer.truth[sample], color=canvas.colour(0), where="mid")
        axes.step(range(answer.truth.shape[1]), answer.predicted[sample], "--", color=canvas.colour(1), where="mid")

    if answer.truth.ndim != 2:
        return canvas.message("predictions of this shape cannot be drawn")
    return canvas.grid(np.arange(min(ROWS, len(answer.truth))), draw, cell=(6.0, 0.9), across=1, legend=True)


def _series(x: Any, answer: ModelOutput) -> Figure:
    def draw(axes: Axes, sample: int) -> None:
        for channel in range(min(answer.truth.shape[2], 3)):
            axes.plot(answer.truth[sample, :, channel], color=canvas.colour(0), linewidth=1.1)
            axes.plot(answer.predicted[sample, :, channel], "--", color=canvas.colour(1), linewidth=1.1)

    return canvas.grid(np.arange(min(ROWS, len(answer.truth))), draw, cell=(6.0, 0.9), across=1, legend=True)


def _values(x: Any, answer: ModelOutput) -> Figure:
    """Over the input where that is one number, else side by side."""
    truth, said = (values.reshape(len(values), -1) for values in (answer.truth, answer.predicted))
    scalar = scalar_input(x)
    figure = canvas.new_figure(6.4, 3.5)
    axes = canvas.place(figure, 0.68, 0.72, 5.55, 2.4)
    axes.grid(visible=True)
    if scalar is not None:
        _draw_over_input(axes, scalar, truth[:, 0], said[:, 0])
    else:
        _draw_pairs(axes, truth[:_PAIRS, 0], said[:_PAIRS, 0])
    shown = min(len(truth), _PAIRS if scalar is None else _CURVE_POINTS)
    output = f", output 1 of {truth.shape[1]}" if truth.shape[1] > 1 else ""
    axes.set_title(f"first {shown:,} samples{output}")
    figure.legend(loc="lower left", bbox_to_anchor=(0.1, 0.0), ncols=2)
    return figure


def _draw_over_input(axes: Axes, x: np.ndarray, truth: np.ndarray, said: np.ndarray) -> None:
    order = np.argsort(x[:_CURVE_POINTS], kind="stable")
    many = len(order) > 400
    axes.plot(
        x[order],
        truth[order],
        ".",
        color=canvas.colour(0),
        markersize=4,
        markeredgewidth=0,
        alpha=0.5,
        label="truth",
        rasterized=many,
    )
    axes.plot(x[order], said[order], color=canvas.colour(1), linewidth=1.8, label="prediction")
    axes.set_xlabel("input")


def _draw_pairs(axes: Axes, truth: np.ndarray, said: np.ndarray) -> None:
    places = np.arange(len(truth))
    axes.vlines(places, truth, said, color=canvas.FAINT, linewidth=0.8)
    axes.plot(places, truth, "o", color=canvas.colour(0), markersize=4, label="truth")
    axes.plot(places, said, "D", color=canvas.colour(1), markersize=3.5, label="prediction")
    axes.set_xlabel("sample")
