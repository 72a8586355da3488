"""Pictures of results, written as PNG files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments_manager.runs.atomic import write_bytes


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


def confusion_matrix_picture(
    truth: np.ndarray, predicted: np.ndarray, class_names: Sequence[str], path: Path | str
) -> Path:
    """Draw the confusion matrix: counts as numbers, and as colour their share among all of that true class.

    Args:
        truth: True classes, integers from 0, of shape [samples].
        predicted: Predicted classes, likewise.
        class_names: Name of each class.
        path: The PNG file to write.

    Returns:
        `path`.

    Raises:
        ValueError: See `confusion_matrix`.
        OSError: The file could not be written; nothing is left of it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = confusion_matrix(truth, predicted, len(class_names))
    classes = len(class_names)
    inches = 2.2 + max(2.4, 0.42 * classes if classes <= 25 else 0.3 * classes)
    figure = Figure(figsize=(inches + 0.6, inches), layout="constrained")
    FigureCanvasAgg(figure)
    _draw_matrix(figure, counts, class_names)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150, bbox_inches="tight")
    write_bytes(path, picture.getvalue())
    return Path(path)


def _draw_matrix(figure: object, counts: np.ndarray, class_names: Sequence[str]) -> None:
    """Fill a matplotlib figure."""
    classes = len(class_names)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.7, aspect=30, label="share of the true class")
    right, samples = int(np.trace(counts)), int(counts.sum())
    share = f" ({right / samples:.2%})" if samples else ""
    axes.set_title(f"{right:,} of {samples:,} right{share}")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    size = 9.0 if classes <= 25 else 6.5
    is_long = max(map(len, class_names), default=0) > 3
    names = [name if len(name) <= 24 else f"{name[:23]}…" for name in class_names]
    axes.set_xticks(range(classes), names, rotation=90 if is_long and classes > 3 else 0, fontsize=size)
    axes.set_yticks(range(classes), names, fontsize=size)
    axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="0.9", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    for row, column in zip(*np.nonzero(counts), strict=True):
        text = _short(int(counts[row, column]), characters=10 if classes <= 4 else 4)
        colour = "white" if shares[row, column] > 0.55 else "0.15"
        fitting = size if classes <= 4 else min(size, 3.2 * size / len(text))
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=fitting)


def _short(count: int, characters: int) -> str:
    """Write a count in full where there is room, else in four characters: 1234, 12k, 1.2M."""
    if len(str(count)) <= characters:
        return str(count)
    if count < 1_000_000:
        return f"{count / 1000:.0f}k"
    return f"{count / 1_000_000:.1f}M"
