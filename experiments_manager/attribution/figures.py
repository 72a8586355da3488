"""Maps beside what they are of, and the curves that measure them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments_manager.attribution.explanation import Explanation
from experiments_manager.attribution.map_quality import STEPS
from experiments_manager.monitoring.plots import canvas
from experiments_manager.monitoring.plots.pictures import as_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROWS = 8
"""Samples that are drawn at most."""
_SIDE = 1.5
_MOST_BARS = 24


def map_figure(explanation: Explanation) -> Figure:
    """Draw a row a sample: the input, then a map a method; what speaks for the class is red, against it blue."""
    with canvas.figure_style():
        target = explanation.target
        rows, methods = min(ROWS, len(target.question)), list(explanation.methods.items())
        height, wide = (_SIDE, _SIDE) if _is_flat(explanation) else (1.0, 2.4)
        gap, top, below = 0.12, 0.3, 0.22
        width = 0.1 + (1 + len(methods)) * (wide + gap)
        figure = canvas.new_figure(max(width, 3.0), top + rows * (height + below) + 0.1)
        total = figure.get_size_inches()[1]
        for row in range(rows):
            for column in range(1 + len(methods)):
                bottom = total - top - (row + 1) * (height + below) + below
                axes = canvas.place(figure, 0.1 + column * (wide + gap), bottom, wide, height)
                if column:
                    name, result = methods[column - 1]
                    _draw_map(axes, explanation, result.maps, row)
                else:
                    name = target.input_name
                    _draw_input(axes, explanation, row)
                if row == 0:
                    axes.set_title(canvas.shortened(name), fontsize=8.5)
        return figure


def curve_figure(explanation: Explanation) -> Figure:
    """Draw the mean probability over the share of the positions that are deleted, and that are inserted."""
    with canvas.figure_style():
        figure = canvas.new_figure(8.4, 3.1)
        shares = np.linspace(0, 100, STEPS + 1)
        for column, (kind, done) in enumerate((("deletion", "deleted"), ("insertion", "inserted"))):
            axes = canvas.place(figure, 0.55 + column * 4.1, 0.5, 3.6, 2.25)
            for number, (name, result) in enumerate(explanation.methods.items()):
                area = getattr(result.curves, f"{kind}_area")
                curve = getattr(result.curves, kind)
                axes.plot(shares, curve, color=canvas.colour(number), label=f"{name} {area:.2f}", lw=1.4)
            area = getattr(explanation.random, f"{kind}_area")
            axes.plot(
                shares, getattr(explanation.random, kind), "--", color=canvas.FAINT, label=f"random order {area:.2f}"
            )
            better = "smaller" if kind == "deletion" else "larger"
            axes.set_title(f"{kind}: a {better} area is better")
            axes.set_xlabel(f"positions {done} (%)")
            axes.set_ylim(-0.02, 1.02)
            axes.legend()
            if column == 0:
                axes.set_ylabel("probability of the class")
        return figure


def _is_flat(explanation: Explanation) -> bool:
    """Return whether samples are drawn as pictures: pictures themselves, and slices of volumes."""
    target = explanation.target
    return len(target.output.positions(target.question.values)) >= 2


def _draw_input(axes: Axes, explanation: Explanation, row: int) -> None:
    target = explanation.target
    values = target.question.values
    kind = int(target.question.classes[row])
    if _is_flat(explanation):
        pictures = as_bytes(values if values.ndim < 5 else _slices(explanation, values))
        axes.imshow(pictures[row])
        region = target.question.regions[row]
        if region.shape == pictures.shape[1:3] and region.min() < region.max():
            axes.contour(region, levels=[0.5], colors=[canvas.PALETTE[1]], linewidths=0.9)
        axes.set_axis_off()
    elif target.output.has_channels:
        axes.plot(values[row], lw=0.9)
        axes.set(xticks=[], yticks=[])
    else:
        _bars(axes, values[row], canvas.INK)
    text = canvas.shortened(target.class_names[kind], 18)
    is_class = target.truth.ndim == 1
    wrong = is_class and int(target.truth[row]) != kind
    if wrong:
        text += f" (true: {canvas.shortened(target.class_names[int(target.truth[row])], 14)})"
    colour = canvas.WRONG if wrong else canvas.INK
    axes.text(0, -0.03, text, transform=axes.transAxes, va="top", fontsize=7.5, color=colour)


def _draw_map(axes: Axes, explanation: Explanation, maps: np.ndarray, row: int) -> None:
    target = explanation.target
    values = target.question.values
    if _is_flat(explanation):
        is_volume = values.ndim == 5
        grey = as_bytes(_slices(explanation, values) if is_volume else values)[row].mean(axis=-1)
        axes.imshow(255 - (255 - grey) / 3, cmap="gray", vmin=0, vmax=255)  # faint below the map
        axes.imshow(_shades((_slices(explanation, maps) if is_volume else maps)[row]))
        axes.set_axis_off()
    elif target.output.has_channels:
        extent = (-0.5, len(values[row]) - 0.5, float(values[row].min()), float(values[row].max()))
        axes.imshow(_shades(maps[row][np.newaxis]), aspect="auto", extent=extent)
        axes.plot(values[row], lw=0.8, color=canvas.INK)
        axes.set(xticks=[], yticks=[])
    else:
        _bars(axes, maps[row], None)


def _shades(values: np.ndarray) -> np.ndarray:
    """Colour a map [height, width]: red above zero, blue below, and the less to be seen the nearer to it."""
    from matplotlib import colormaps

    shares = values / (float(np.abs(values).max()) or 1.0)
    colours = colormaps["RdBu_r"](0.5 + 0.45 * np.sign(shares))
    colours[..., 3] = np.abs(shares)
    return colours


def _slices(explanation: Explanation, volumes: np.ndarray) -> np.ndarray:
    """Take from each volume [depth, …] the slice that matters most to the first method."""
    maps = np.abs(next(iter(explanation.methods.values())).maps)
    depths = maps.reshape(*maps.shape[:2], -1).sum(axis=-1).argmax(axis=1)
    return volumes[np.arange(len(volumes)), depths]


def _bars(axes: Axes, values: np.ndarray, colour: str | None) -> None:
    values = values[:_MOST_BARS]
    colours = colour or [canvas.WRONG if value > 0 else canvas.colour(0) for value in values]
    axes.bar(np.arange(len(values)), values, color=colours)
    axes.set(xticks=[])
