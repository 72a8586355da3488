"""Confusion matrices: counted, and drawn as counts or as shares of the true class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from experiments_manager.monitoring.plots import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_NUMBERS = 40
"""Classes up to which the cells bear numbers; beyond, nobody could read them."""
MOST_NAMES = 100
MOST_CLASSES = 2000
"""Classes up to which there is a confusion matrix; beyond, it would have more cells than the figure has pixels."""
_LARGEST = 14.0  # inches


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count how often each true class was predicted as each class.

    Args:
        truth: True classes, integers in 0..classes-1, of shape [samples].
        predicted: Predicted classes, likewise.
        classes: Number of classes.

    Returns:
        Integer array of shape [classes, classes]: true classes in rows, predicted ones in columns.

    Raises:
        ValueError: The shapes differ, or a class is out of range.
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise ValueError(f"Expected two vectors of one length, got the shapes {truth.shape} and {predicted.shape}.")
    if truth.size == 0:
        return np.zeros((classes, classes), np.int64)
    for name, values in (("truth", truth), ("predicted", predicted)):
        if not np.issubdtype(values.dtype, np.integer) or values.min() < 0 or values.max() >= classes:
            raise ValueError(f"{name}: expected integers in 0..{classes - 1}, got {values.min()}..{values.max()}.")
    pairs = truth.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def confusion_figure(
    counts: np.ndarray, class_names: Sequence[str], *, normalised: bool = False, of: str = "", unit: str = "samples"
) -> Figure:
    """Draw a confusion matrix; its colours are the shares of the true class in any case.

    Args:
        counts: As `confusion_matrix` gives them.
        class_names: Name of each class.
        normalised: Whether the numbers are shares in percent rather than counts.
        of: What was classified, e.g. `validation`.
        unit: What was counted, `samples` or `pixels`.
    """
    classes = len(class_names)
    names = [canvas.shortened(name) for name in class_names]
    size = 8.5 if classes <= 25 else 6.5
    shown_names = names if classes <= MOST_NAMES else []
    slanted = classes > 3 and max(map(len, names), default=0) > 3
    margin = 0.45 + (canvas.text_width(shown_names, size) if classes > 3 or not slanted else 0.6)
    below = margin if slanted else 0.5
    side = min(_LARGEST, max(2.4, (0.42 if classes <= 25 else 0.3) * classes))
    above = 0.72
    with canvas.figure_style():
        width = max(margin + side + 0.95, 4.4)
        figure = canvas.new_figure(width, below + side + above)
        axes = canvas.place(figure, margin, below, side, side)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        bar = canvas.place(figure, margin + side + 0.14, below, 0.1, side)
        figure.colorbar(image, cax=bar, label="share of the true class")
        bar.spines["outline"].set_linewidth(0.5)
        _draw_title(axes, counts, of, unit, normalised=normalised)
        _draw_names(axes, shown_names, classes, size, rotation=90 if slanted else 0)
        if classes <= MOST_NUMBERS:
            _draw_numbers(axes, counts, shares, size, normalised=normalised)
    return figure


def _draw_title(axes: Axes, counts: np.ndarray, of: str, unit: str, *, normalised: bool) -> None:
    right, total = int(np.trace(counts)), int(counts.sum())
    share = f" ({right / total:.2%})" if total else ""
    numbers = "; numbers are % of the true class" if normalised else ""
    axes.set_title(f"{right:,} of {total:,} {f'{of} ' if of else ''}{unit}\nright{share}{numbers}")


def _draw_names(axes: Axes, names: Sequence[str], classes: int, size: float, rotation: float) -> None:
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.tick_params(length=0)
    if names:
        axes.set_xticks(range(classes), names, rotation=rotation, fontsize=size)
        axes.set_yticks(range(classes), names, fontsize=size)
    if classes <= MOST_NUMBERS:
        axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="0.9", alpha=1.0, linewidth=0.5)
        axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_visible(True)


def _draw_numbers(axes: Axes, counts: np.ndarray, shares: np.ndarray, size: float, *, normalised: bool) -> None:
    classes = len(counts)
    for row, column in zip(*np.nonzero(counts), strict=True):
        share = shares[row, column]
        text = _percent(share) if normalised else _short(int(counts[row, column]), characters=10 if classes <= 4 else 4)
        fitting = size if classes <= 4 else min(size, 3.2 * size / len(text))
        colour = "white" if share > 0.55 else "#262626"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=fitting)


def _percent(share: float) -> str:
    """Write a share in percent; one that is neither 0 nor 1 is not rounded to either."""
    percent = 100 * share
    if percent < 1:
        return "<1"
    return ">99" if 99.5 <= percent < 100 else f"{percent:.0f}"


def _short(count: int, characters: int) -> str:
    """Write a count in full where there is room, else in four characters: 1234, 12k, 1.2M."""
    if len(str(count)) <= characters:
        return str(count)
    if count < 1_000_000:
        return f"{count / 1000:.0f}k"
    return f"{count / 1_000_000:.1f}M"
