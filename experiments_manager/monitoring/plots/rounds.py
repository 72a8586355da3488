"""The rounds of a federation: who took part, the curves of clients under those of the global model, and traffic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from experiments_manager.monitoring.plots import canvas
from experiments_manager.monitoring.plots.curves import (
    LOG_RATIO,
    TRAIN_COLOUR,
    VALIDATION,
    VALIDATION_COLOUR,
    LearningCurves,
    finish_panel,
    new_panel,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEFT, _BOTTOM, _RIGHT = 0.62, 0.46, 0.15  # inches
_WIDE, _BAR = 9.2, 0.1
_ROW, _LOWEST, _HIGHEST = 0.17, 0.6, 4.6
MOST_LABELS = 30
"""Clients that are named at the map; of more, every so many."""


@canvas.figure_style()
def participation_map(
    clients: Sequence[str], rounds: np.ndarray, asked: np.ndarray, took_part: np.ndarray, values: np.ndarray, name: str
) -> Figure:
    """Draw a cell a client and round: its value, or that it was left out or not asked.

    Args:
        clients: Their names, in the order of the rows.
        rounds: Integers [rounds].
        asked: Booleans [clients, rounds].
        took_part: Booleans [clients, rounds].
        values: Floats [clients, rounds] that the colours tell, e.g. losses.
        name: What the values are.
    """
    height = min(_HIGHEST, max(_LOWEST, _ROW * len(clients)))
    figure = canvas.new_figure(_LEFT + _WIDE + _RIGHT, _BOTTOM + height + 0.25)
    axes = canvas.place(figure, _LEFT, _BOTTOM, _WIDE - 0.75, height)
    extent = (rounds[0] - 0.5, rounds[-1] + 0.5, len(clients) - 0.5, -0.5)
    axes.imshow(_painted(asked & ~took_part, asked), aspect="auto", extent=extent, interpolation="none")
    _draw_values(figure, axes, np.where(took_part, values, np.nan), extent, name, height)
    _label(axes, clients)
    return figure


def _painted(left_out: np.ndarray, asked: np.ndarray) -> np.ndarray:
    from matplotlib.colors import to_rgba

    pixels = np.empty((*asked.shape, 4))
    pixels[:] = to_rgba(canvas.FAINT)  # took part, and told no value
    pixels[~asked] = to_rgba(canvas.FAINT, 0.16)  # light on white pages, dark on black ones
    pixels[left_out] = to_rgba(canvas.WRONG)
    return pixels


def _draw_values(
    figure: Figure, axes: Axes, values: np.ndarray, extent: Sequence[float], name: str, height: float
) -> None:
    from matplotlib.colors import LogNorm, Normalize

    finite = values[np.isfinite(values)]
    if not len(finite):
        return
    low, high = float(finite.min()), float(finite.max())
    is_wide = low > 0 and high > LOG_RATIO * low
    norm = LogNorm(low, high) if is_wide else Normalize(low, high if high > low else low + 1.0)
    shown = np.ma.masked_invalid(values)
    image = axes.imshow(shown, cmap="viridis_r", norm=norm, aspect="auto", extent=extent, interpolation="none")
    bar = canvas.place(figure, _LEFT + _WIDE - 0.65, _BOTTOM, _BAR, height)
    figure.colorbar(image, cax=bar)
    bar.set_title(canvas.shortened(name, 10), fontsize=8, fontweight="normal", loc="left")
    bar.tick_params(labelsize=7.5, length=2)
    _few_ticks(bar, low, high, is_wide)


def _few_ticks(bar: Axes, low: float, high: float, is_wide: bool) -> None:
    middle = math.sqrt(low * high) if is_wide else (low + high) / 2
    places = [low, middle, high] if high > low else [low]
    bar.minorticks_off()
    bar.set_yticks(places, [f"{place:.2g}" for place in places])


def _label(axes: Axes, clients: Sequence[str]) -> None:
    from matplotlib.ticker import MaxNLocator

    every = math.ceil(len(clients) / MOST_LABELS)
    axes.set_yticks(range(0, len(clients), every), clients[::every], fontsize=7)
    axes.set_ylabel("client", labelpad=2)
    axes.set_xlabel("round", labelpad=1)
    axes.xaxis.set_major_locator(MaxNLocator(16, integer=True))
    axes.tick_params(length=2)


@canvas.figure_style()
def client_curves(
    name: str, run: LearningCurves, rounds: np.ndarray, values: Mapping[str, np.ndarray], groups: Sequence[int]
) -> Figure:
    """Draw a metric of each client as a thin line, and that of the global model over them.

    Args:
        name: The metric.
        run: Curves of the global model.
        rounds: Integers [rounds].
        values: Floats [clients, rounds] by the metric's name; those of evaluations begin with `val_`.
        groups: The cluster of each client, from 0; where there is more than one, it is told by colour.
    """
    figure, axes = new_panel()
    told = values.get(name, values.get(f"{VALIDATION}{name}"))
    drawn = [_thin_lines(axes, rounds, told, groups)]
    for column, colour, style in ((name, TRAIN_COLOUR, "--"), (f"{VALIDATION}{name}", VALIDATION_COLOUR, "-")):
        if column in run.columns:
            axes.plot(run.epochs, run.columns[column], style, color=colour, linewidth=1.9, zorder=5)
            drawn.append(run.columns[column])
    finish_panel(axes, name, drawn, rounds, "round")
    return figure


def _thin_lines(axes: Axes, rounds: np.ndarray, values: np.ndarray, groups: Sequence[int]) -> np.ndarray:
    alpha = max(0.25, min(0.85, 12 / len(values)))
    for group in sorted(set(groups)):
        rows = values[[index for index, each in enumerate(groups) if each == group]]
        colour = canvas.FAINT if len(set(groups)) < 2 else canvas.colour(group)
        for row in rows:
            there = np.isfinite(row)  # over rounds in which it took no part, its points are joined
            axes.plot(rounds[there], row[there], color=colour, linewidth=0.9, alpha=alpha, zorder=2)
    return values


@canvas.figure_style()
def traffic(rounds: np.ndarray, sent: np.ndarray, received: np.ndarray) -> Figure:
    """Draw the megabytes that the server sent and received in each round."""
    figure, axes = new_panel()
    for values, colour, style in ((sent, TRAIN_COLOUR, "--"), (received, VALIDATION_COLOUR, "-")):
        axes.plot(rounds, values / 1e6, style, color=colour, linewidth=1.5, marker="o" if len(rounds) == 1 else None)
    finish_panel(axes, "MB a round", [sent, received], rounds, "round", from_zero=True)
    return figure


@canvas.figure_style()
def attendance(rounds: np.ndarray, participants: np.ndarray, left_out: np.ndarray) -> Figure:
    """Draw how many clients took part in each round, and how many were left out."""
    figure, axes = new_panel()
    edges = np.append(rounds - 0.5, rounds[-1] + 0.5)
    axes.stairs(participants, edges, fill=True, color=TRAIN_COLOUR, alpha=0.75, linewidth=0)
    axes.stairs(participants + left_out, edges, baseline=participants, fill=True, color=canvas.WRONG, linewidth=0)
    finish_panel(axes, "clients a round", [participants + left_out], rounds, "round", from_zero=True)
    return figure
