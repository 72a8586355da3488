"""Small axes in rows and columns, for samples side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from experiments_manager.monitoring.plots import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACROSS = 5


def grid(
    chosen: np.ndarray,
    draw: Callable[[Axes, int], None],
    cell: tuple[float, float],
    *,
    across: int = ACROSS,
    gap: float = 0.25,
    title: str = "",
    legend: bool = False,
) -> Figure:
    """Draw small axes in rows, one for each of the chosen samples.

    Args:
        chosen: Numbers of the samples.
        draw: Fills the axes for a sample.
        cell: Width and height of the axes in inches.
        across: Axes in a row.
        gap: Inches between them.
        title: Stands above all.
        legend: Whether to explain the lines of truth and prediction.
    """
    across = min(across, len(chosen))
    down = math.ceil(len(chosen) / across)
    width, height = cell
    left, above, top, bottom = 0.5 if legend else gap, 0.38, 0.24 if title else 0.0, 0.55 if legend else 0.15
    figure = canvas.new_figure(max(left + across * (width + gap), 3.0), top + down * (height + above) + bottom)
    total = figure.get_size_inches()[1]
    for number, sample in enumerate(chosen):
        row, column = divmod(number, across)
        axes = canvas.place(
            figure, left + column * (width + gap), total - top - (row + 1) * (height + above), width, height
        )
        draw(axes, int(sample))
    if title:
        figure.text(left / figure.get_size_inches()[0], 1 - 0.06 / total, title, fontweight="bold", va="top")
    if legend:
        truth_legend(figure)
    return figure


def truth_legend(figure: Figure) -> None:
    """Explain the lines of truth and prediction at the foot of a figure."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=canvas.colour(0), label="truth"),
        Line2D([], [], color=canvas.colour(1), linestyle="--", label="prediction"),
    ]
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.06, 0.0), ncols=2)


def table(columns: Sequence[tuple[str, np.ndarray]], rows: int, *, legend: bool = False) -> Figure:
    """Draw pictures in rows, one row a sample, one column a meaning.

    Args:
        columns: Title and pictures, bytes [n, height, width, 3], of each column.
        rows: Samples that are shown.
        legend: Whether to leave room for a legend at the foot.
    """
    side = fitted(columns[-1][1], 1.5)
    gap, top, bottom = 0.08, 0.3, 0.5 if legend else 0.1
    figure = canvas.new_figure(
        max(0.1 + len(columns) * (side[0] + gap), 4.2 if legend else 2.5), top + rows * (side[1] + gap) + bottom
    )
    total = figure.get_size_inches()[1]
    for column, (title, pictures) in enumerate(columns):
        for row in range(rows):
            place = (0.1 + column * (side[0] + gap), total - top - (row + 1) * (side[1] + gap) + gap, *side)
            axes = canvas.place(figure, *place)
            show(axes, pictures[row])
            if row == 0:
                axes.set_title(title)
    return figure


def fitted(pictures: np.ndarray, most: float) -> tuple[float, float]:
    """Give width and height in inches for pictures [n, height, width, …], so that neither is more than `most`."""
    height, width = pictures.shape[1:3]
    return most * width / max(height, width), most * height / max(height, width)


def show(axes: Axes, picture: np.ndarray) -> None:
    """Fill axes with a picture, bytes [height, width, 3]."""
    axes.imshow(picture)
    axes.set_axis_off()


def message(text: str) -> Figure:
    """Make a figure that says why there is none."""
    figure = canvas.new_figure(4.0, 1.0)
    figure.text(0.05, 0.5, text)
    return figure
