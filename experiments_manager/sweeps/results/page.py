"""The report of a sweep: one HTML page that needs no network, and the figures in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments_manager.common.jsonable import to_jsonable
from experiments_manager.common.pages.rendering import render_page
from experiments_manager.monitoring.plots import canvas
from experiments_manager.monitoring.plots.comparison import write_file
from experiments_manager.monitoring.report.inline_svg import inline_svg
from experiments_manager.sweeps.results.analysis import (
    Analysis,
    SearchedHyperparameter,
    analyse,
    fit_forest,
    front_of,
    importance,
    predicted,
    running_best,
)
from experiments_manager.sweeps.state.folder import SweepFolder
from experiments_manager.sweeps.state.trials import SweepState, best_trial

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).with_name("sweep.html")
MOST_ROWS = 2000
_TITLES = {
    "history": "History",
    "pareto_front": "Pareto front",
    "importance": "Importance",
    "hyperparameters": "Hyperparameters",
    "contour": "The two most important ones",
}
_WIDTH, _HEIGHT = 6.4, 3.2
_MOST_SLICES = 12
_MAP = "viridis_r"


def write_report(folder: SweepFolder, state: SweepState, command: str | None) -> Path | None:
    """Write the figures, and the page with all of them.

    Args:
        folder: Of the sweep.
        state: What is known.
        command: What repeats the best trial.

    Returns:
        The page; `None` where no trial has a result.

    Raises:
        RunError: A file cannot be written.
    """
    objectives, modes = state.opened["objectives"], state.opened["modes"]
    analysis = analyse(state, objectives, modes)
    if not analysis.trials:
        return None
    figures = sweep_figures(analysis)
    for name, figure in figures.items():
        write_file(folder.figures_dir / f"{name}.png", canvas.encode(figure, ".png"))
    charts = {_TITLES[name]: inline_svg(figure, name) for name, figure in figures.items() if name in _TITLES}
    write_file(folder.report, _render(folder, state, analysis, charts, command).encode())
    return folder.report


def _render(
    folder: SweepFolder, state: SweepState, analysis: Analysis, charts: Mapping[str, Markup], command: str | None
) -> str:
    best = best_trial(state.trials.values(), tuple(analysis.modes))
    names = sorted({name for trial in state.trials.values() for name in trial.overrides})
    counts: dict[str, int] = {}
    for trial in state.trials.values():
        counts[trial.state] = counts.get(trial.state, 0) + 1
    return render_page(
        TEMPLATE,
        title=f"Sweep {folder.path.name}",
        place=folder.path,
        opened=state.opened,
        best=best,
        counts=counts,
        seconds=state.seconds,
        command=command,
        charts=charts,
        names=names,
        objectives=analysis.objectives,
        trials=_sorted(state, analysis.modes)[:MOST_ROWS],
        coordinates=to_jsonable(_coordinates(analysis)),
    )


def _sorted(state: SweepState, modes: Sequence[str]) -> list[Any]:
    """Return all trials, the best first, those without a result last."""
    sign = -1 if modes[0] == "max" else 1
    return sorted(
        state.trials.values(),
        key=lambda trial: (not trial.has_result, sign * trial.values[0] if trial.values else math.inf, trial.number),
    )


def _coordinates(analysis: Analysis) -> dict[str, Any]:
    """Return what the interactive figure draws: axes, and for each trial a place on each of them or none."""
    axes = [
        {"name": dimension.name, "labels": dimension.labels, "logarithmic": dimension.logarithmic}
        for dimension in analysis.dimensions
    ]
    axes += [{"name": name, "labels": None, "logarithmic": False} for name in analysis.objectives]
    columns = [*(dimension.values for dimension in analysis.dimensions), *analysis.values.T]
    rows = [[None if math.isnan(column[place]) else float(column[place]) for column in columns]
            for place in range(len(analysis.trials))]  # fmt: skip
    ranks = {int(place): rank for rank, place in enumerate(analysis.losses.argsort(kind="stable"))}
    return {
        "axes": axes,
        "trials": [
            {"number": trial.number, "values": rows[place], "rank": ranks[place]}
            for place, trial in enumerate(analysis.trials)
        ],
    }


def sweep_figures(analysis: Analysis) -> dict[str, Figure]:
    """Draw all figures that there is enough for.

    Args:
        analysis: At least one trial.

    Returns:
        Figures by name, in the order in which they are read.
    """
    with canvas.figure_style():
        shares = importance(analysis)
        figures = {"history": _history(analysis)}
        if len(analysis.objectives) > 1:
            figures["pareto_front"] = _front(analysis)
        if shares:
            figures["importance"] = _importance(shares)
        if analysis.dimensions:
            figures["hyperparameters"] = _slices(analysis, list(shares))
        if len(analysis.dimensions) > 1:
            figures["parallel_coordinates"] = _parallel(analysis)
        if len(shares) > 1:
            figures["contour"] = _contour(analysis, list(shares)[:2])
    return figures


def _history(analysis: Analysis) -> Figure:
    figure = canvas.new_figure(_WIDTH, _HEIGHT)
    axes = canvas.place(figure, 0.7, 0.5, _WIDTH - 0.85, _HEIGHT - 0.85)
    numbers = np.arange(len(analysis.trials))
    whole = np.array([trial.has_result for trial in analysis.trials])
    axes.scatter(numbers[whole], analysis.values[whole, 0], s=14, color=canvas.PALETTE[0], zorder=3)
    axes.scatter(numbers[~whole], analysis.values[~whole, 0], s=14, color=canvas.FAINT, marker="x", zorder=2)
    axes.step(numbers, running_best(analysis), where="post", color=canvas.PALETTE[1], linewidth=1.4)
    _scale(axes, analysis)
    axes.set_xlabel("trial")
    axes.set_title(f"{analysis.objectives[0]} by trial, and the best so far")
    return figure


def _front(analysis: Analysis) -> Figure:
    figure = canvas.new_figure(_WIDTH, _HEIGHT)
    axes = canvas.place(figure, 0.8, 0.55, _WIDTH - 1.0, _HEIGHT - 0.9)
    front = front_of(analysis)
    axes.scatter(*analysis.values[~front, :2].T, s=14, color=canvas.FAINT)
    axes.scatter(*analysis.values[front, :2].T, s=24, color=canvas.PALETTE[1], zorder=3)
    axes.set_xlabel(analysis.objectives[0])
    axes.set_ylabel(analysis.objectives[1])
    axes.set_title("Pareto front")
    return figure


def _importance(shares: dict[str, float]) -> Figure:
    height = 0.8 + 0.26 * len(shares)
    left = 0.3 + canvas.text_width([canvas.shortened(name) for name in shares], 8)
    figure = canvas.new_figure(_WIDTH, height)
    axes = canvas.place(figure, left, 0.4, _WIDTH - left - 0.6, height - 0.75)
    names = list(shares)[::-1]
    bars = axes.barh([canvas.shortened(name) for name in names], [shares[name] for name in names],
                     color=canvas.PALETTE[0], height=0.6)  # fmt: skip
    axes.bar_label(bars, [f"{shares[name]:.0%}" for name in names], padding=3, fontsize=8)
    axes.set_xlim(0, 1.1 * max(shares.values()) or 1)
    axes.set_title("Share of the differences that each hyperparameter accounts for")
    return figure


def _slices(analysis: Analysis, order: list[str]) -> Figure:
    """Draw each hyperparameter against the first objective, the most important first."""
    ranked = sorted(analysis.dimensions, key=lambda item: order.index(item.name) if item.name in order else 99)
    dimensions = ranked[:_MOST_SLICES]
    columns = min(3, len(dimensions))
    rows = math.ceil(len(dimensions) / columns)
    panel, height = (_WIDTH + 0.6) / columns, 2.1
    figure = canvas.new_figure(_WIDTH + 0.6, rows * height)
    for place, dimension in enumerate(dimensions):
        row, column = divmod(place, columns)
        bottom = (rows - 1 - row) * height + 0.4
        axes = canvas.place(figure, column * panel + 0.6, bottom, panel - 0.75, height - 0.75)
        axes.scatter(dimension.values, analysis.values[:, 0], c=np.arange(len(analysis.trials)), cmap=_MAP, s=10)
        _ticks(axes, dimension)
        _scale(axes, analysis)
        axes.set_title(canvas.shortened(dimension.name))
    return figure


def _ticks(axes: Axes, dimension: SearchedHyperparameter) -> None:
    if dimension.labels is not None:
        axes.set_xticks(range(len(dimension.labels)), [canvas.shortened(text, 10) for text in dimension.labels])
    elif dimension.logarithmic:
        canvas.make_logarithmic(axes.xaxis, np.nanmin(dimension.values), np.nanmax(dimension.values))


def _scale(axes: Axes, analysis: Analysis) -> None:
    values = analysis.values[:, 0]
    if values.min() > 0 and values.max() / values.min() > 50:
        canvas.make_logarithmic(axes.yaxis, values.min(), values.max())


def _parallel(analysis: Analysis) -> Figure:
    figure = canvas.new_figure(_WIDTH + 0.6, _HEIGHT)
    axes = canvas.place(figure, 0.4, 0.6, _WIDTH - 0.2, _HEIGHT - 1.0)
    columns = [_unit(dimension.scaled) for dimension in analysis.dimensions] + [_unit(_ranked(analysis))]
    colours = _colours(analysis)
    for trial in np.argsort(-analysis.losses):
        axes.plot(range(len(columns)), [column[trial] for column in columns], color=colours[trial], linewidth=0.9,
                  alpha=0.75)  # fmt: skip
    names = [*(dimension.name for dimension in analysis.dimensions), f"rank of {analysis.objectives[0]}"]
    axes.set_xticks(range(len(columns)), [canvas.shortened(name, 16) for name in names])
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    for place in range(len(columns)):
        axes.axvline(place, color=canvas.FAINT, linewidth=0.7, zorder=0)
    axes.set_title("Parallel coordinates, the best trials darkest")
    return figure


def _ranked(analysis: Analysis) -> np.ndarray:
    return np.argsort(np.argsort(analysis.losses, kind="stable"), kind="stable").astype(float)


def _unit(values: np.ndarray) -> np.ndarray:
    low, high = np.nanmin(values), np.nanmax(values)
    return (values - low) / ((high - low) or 1.0)


def _colours(analysis: Analysis) -> np.ndarray:
    import matplotlib

    return matplotlib.colormaps[_MAP](1.0 - _unit(_ranked(analysis)))


def _contour(analysis: Analysis, names: list[str]) -> Figure:
    figure = canvas.new_figure(_WIDTH, _HEIGHT + 0.6)
    axes = canvas.place(figure, 0.8, 0.55, _WIDTH - 1.0, _HEIGHT - 0.3)
    first, second = (next(item for item in analysis.dimensions if item.name == name) for name in names)
    across, up, ranks = predicted(fit_forest(analysis), analysis, first.name, second.name)
    axes.contourf(across, up, ranks, levels=12, cmap="viridis")
    axes.scatter(first.scaled, second.scaled, c="white", edgecolors=canvas.INK, linewidths=0.6, s=18)
    axes.set_xlabel(_axis_name(first))
    axes.set_ylabel(_axis_name(second))
    axes.set_title("Where results are good (dark), by a random forest")
    return figure


def _axis_name(dimension: SearchedHyperparameter) -> str:
    return f"log10 of {dimension.name}" if dimension.logarithmic else dimension.name
