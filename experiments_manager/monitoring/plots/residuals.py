"""Residuals of a regression: prediction against truth, and how the errors are distributed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from experiments_manager.monitoring.plots import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_POINTS = 5000
MOST_OUTPUTS = 6
"""Outputs up to which each has a colour of its own."""
_VECTOR_POINTS = 400
"""Points up to which an SVG holds each of them as an object."""


def residual_figure(truth: np.ndarray, predicted: np.ndarray, of: str = "") -> Figure:
    """Draw predictions over true values, and a histogram of the residuals (prediction minus truth).

    Args:
        truth: True values [samples] or [samples, …]; pairs with a value that is not finite are left out.
        predicted: Predictions of the same shape.
        of: What was predicted, e.g. `validation`.
    """
    truth, predicted = _columns(truth), _columns(predicted)
    finite = np.isfinite(truth) & np.isfinite(predicted)
    with canvas.figure_style():
        figure = canvas.new_figure(7.6, 3.35)
        left = canvas.place(figure, 0.68, 0.5, 2.9, 2.4)
        right = canvas.place(figure, 4.45, 0.5, 2.95, 2.4)
        if not finite.any():
            left.set_title("no pair of finite values")
            return figure
        _draw_pairs(left, truth, predicted, finite, of)
        _draw_histogram(right, (predicted - truth)[finite])
    return figure


def _columns(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    values = values.reshape(len(values), -1)
    return values if values.shape[1] <= MOST_OUTPUTS else values.reshape(-1, 1)


def _draw_pairs(axes: Axes, truth: np.ndarray, predicted: np.ndarray, finite: np.ndarray, of: str) -> None:
    outputs = truth.shape[1]
    every = -(-truth.size // MOST_POINTS)
    low, high = min(truth[finite].min(), predicted[finite].min()), max(truth[finite].max(), predicted[finite].max())
    axes.plot([low, high], [low, high], color=canvas.FAINT, linewidth=1, linestyle="--", zorder=1)
    many = truth.size > _VECTOR_POINTS
    for output in range(outputs):
        chosen = finite[:, output]
        axes.plot(
            truth[chosen, output][::every],
            predicted[chosen, output][::every],
            ".",
            color=canvas.colour(output),
            markersize=4,
            markeredgewidth=0,
            alpha=0.45 if many else 0.8,
            rasterized=many,
            label=f"output {output}",
        )
    if outputs > 1:
        axes.legend(loc="upper left", fontsize=7.5, handletextpad=0.1)
    residuals = (predicted - truth)[finite]
    spread = np.sum((truth[finite] - truth[finite].mean()) ** 2)
    fit = f", R² {1 - np.sum(residuals**2) / spread:.4g}" if spread > 0 else ""
    axes.set_title(f"{finite.sum():,} {f'{of} ' if of else ''}values{fit}")
    axes.set_xlabel("truth")
    axes.set_ylabel("prediction")
    axes.grid(visible=True)


def _draw_histogram(axes: Axes, residuals: np.ndarray) -> None:
    counts, edges = np.histogram(residuals, bins=min(40, max(8, int(np.sqrt(len(residuals))))))
    axes.stairs(counts, edges, fill=True, color=canvas.colour(0), alpha=0.75)
    axes.axvline(0.0, color=canvas.INK, linewidth=0.8)
    error, bias = np.sqrt(np.mean(residuals**2)), residuals.mean()
    axes.set_title(f"RMSE {error:.4g}, MAE {np.abs(residuals).mean():.4g}")
    axes.set_xlabel(f"prediction minus truth (mean {bias:.2g})")
    axes.set_ylabel("count")
