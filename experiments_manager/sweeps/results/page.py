"""The report of a sweep: one HTML page that needs no network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments_manager.common.jsonable import to_jsonable
from experiments_manager.common.pages.rendering import render_page
from experiments_manager.monitoring.plots import canvas
from experiments_manager.monitoring.plots.comparison import write_file
from experiments_manager.monitoring.report.inline_svg import inline_svg
from experiments_manager.sweeps.results.analysis import Analysis, analyse
from experiments_manager.sweeps.results.figures import sweep_figures
from experiments_manager.sweeps.state.folder import SweepFolder
from experiments_manager.sweeps.state.trials import SweepState, best_trial

if TYPE_CHECKING:
    from markupsafe import Markup

TEMPLATE = Path(__file__).with_name("sweep.html")
MOST_ROWS = 2000
_TITLES = {
    "history": "History",
    "pareto_front": "Pareto front",
    "importance": "Importance",
    "hyperparameters": "Hyperparameters",
    "contour": "The two most important ones",
}


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
