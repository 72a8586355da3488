"""The page: what was collected, drawn and put into the template."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments_manager.common.pages.rendering import render_page
from experiments_manager.events import metrics_among
from experiments_manager.monitoring.plots import canvas
from experiments_manager.monitoring.plots.comparison import write_file
from experiments_manager.monitoring.plots.curves import (
    TRAIN_COLOUR,
    VALIDATION_COLOUR,
    learning_curves,
    learning_rate_curve,
    metric_names,
    overlaid_curves,
)
from experiments_manager.monitoring.report.collect import (
    ReportedRun,
    by_experiment,
    collect_runs,
    is_default,
)
from experiments_manager.monitoring.report.federation_section import federation_section, spans
from experiments_manager.monitoring.report.inline_svg import inline_svg
from experiments_manager.runs.compare import differing
from experiments_manager.runs.run import EPOCH
from experiments_manager.settings.schema import SETTINGS

if TYPE_CHECKING:
    from markupsafe import Markup

FILE = "report.html"
TEMPLATE = Path(__file__).with_name("page.html")
COLOURED = 10
"""Runs that have a colour of their own, the best ones; the curves of the others are grey."""
WITH_FIGURES = 6
"""Runs whose figures are in a page about many, the best ones."""
MOST_METRICS = 8
"""Columns with metrics in the table."""
INLINE = ("learning_curves", "learning_rate")
"""Figures that the page draws itself."""


@dataclasses.dataclass(frozen=True)
class RunGroup:
    """The runs of one experiment, and what a page about several tells of them together."""

    name: str
    runs: list[ReportedRun]
    colours: dict[str, str]
    """Colour of each run by its key; grey for all but the best, where there are many."""
    charts: list[Markup]
    metrics: list[str]
    hparams: list[str]
    """Names of those that differ."""
    settings: list[str]
    """The same, of settings."""

    @classmethod
    def of(cls, name: str, runs: list[ReportedRun]) -> RunGroup:
        """Draw and compare the runs of an experiment."""
        colours = run_colours(runs)
        known = [run for run in runs if run.manifest]
        return cls(
            name=name,
            runs=runs,
            colours=colours,
            charts=_charts(runs, colours),
            metrics=metric_columns(runs),
            hparams=differing([run.row.hparams for run in known]),
            settings=differing([_other_settings(run) for run in known]),
        )

    @property
    def best(self) -> ReportedRun | None:
        """The best of the runs, where one is."""
        return next((run for run in self.runs if run.rank == 0), None)


def write_report(place: Path | str, output: Path | str | None = None) -> Path:
    """Write the page.

    Args:
        place: A run folder, or a folder of runs.
        output: The file; `report.html` in that folder by default.

    Returns:
        The file.

    Raises:
        RunError: There is no run, or the file cannot be written.
    """
    folder, runs = collect_runs(place)
    file = folder / FILE if output is None else Path(output).expanduser()
    write_file(file, render(folder, runs).encode("utf-8", "backslashreplace"))
    return file


def render(folder: Path, runs: Sequence[ReportedRun]) -> str:
    """Make the page as HTML.

    Args:
        folder: What the page is about.
        runs: Its runs, at least one.
    """
    single = len(runs) == 1
    federation = federation_section(runs[0]) if single else None
    groups = [RunGroup.of(name, members) for name, members in by_experiment(runs).items()]
    return render_page(
        TEMPLATE,
        place=folder,
        title=runs[0].manifest.get("settings", {}).get("session_name") or runs[0].row.name if single else folder.name,
        runs=runs,
        single=single,
        groups=groups,
        coloured=COLOURED,
        grey=canvas.FAINT,
        federation=federation,
        shown_already=INLINE if federation is None else (*INLINE, "clusters"),
        federation_strokes=(TRAIN_COLOUR, VALIDATION_COLOUR),
        unit=runs[0].curves.unit if single else EPOCH,
        strokes=(TRAIN_COLOUR, VALIDATION_COLOUR),
        packages=_packages(runs),
        with_figures=_with_figures(runs),
        schema=SETTINGS,
        is_default=is_default,
        spans=spans,
        colour=canvas.colour,
    )


def run_colours(runs: Sequence[ReportedRun]) -> dict[str, str]:
    """Give the colour of each run by its key; grey for all but the best, where there are many."""
    order = sorted(runs, key=lambda run: math.inf if run.rank is None else run.rank)
    chosen = {run.key for run in order[:COLOURED]}
    told = [run for run in runs if run.key in chosen]
    colours = {run.key: canvas.colour(number) for number, run in enumerate(told)}
    return {run.key: colours.get(run.key, canvas.FAINT) for run in runs}


def metric_columns(runs: Sequence[ReportedRun]) -> list[str]:
    """Choose the metrics that the table shows: what is watched first, then validation before training."""
    watched = dict.fromkeys(run.row.best_name for run in runs if run.row.best_name)
    names = dict.fromkeys(name for run in runs for name in metrics_among(run.best_metrics))
    ordered = sorted(names, key=lambda name: not name.startswith("val_"))
    return [name for name in dict.fromkeys([*watched, *ordered]) if name in names][:MOST_METRICS]


def _charts(runs: Sequence[ReportedRun], colours: dict[str, str]) -> list[Markup]:
    """Draw one chart a metric, the best runs on top, and the learning rate of a run that is alone."""
    order = sorted(runs, key=lambda run: -math.inf if run.rank is None else -run.rank)
    curves = [run.curves for run in order if len(run.curves.epochs)]
    if not curves:
        return []
    names = metric_names(curves)
    if len(runs) == 1:
        charts = {name: learning_curves(curves[0], names=[name], legend=False) for name in names}
        if "learning_rate" in curves[0].columns:
            charts["learning rate"] = learning_rate_curve(curves[0])
    else:
        options = {"colours": [colours[run.key] for run in curves], "legend": False}
        charts = {name: overlaid_curves(curves, names=[name], **options) for name in names}
    return [inline_svg(figure, name) for name, figure in charts.items()]


def _other_settings(run: ReportedRun) -> dict[str, Any]:
    return {name: value for name, value in (run.manifest.get("settings") or {}).items() if name != "hparams"}


def _packages(runs: Sequence[ReportedRun]) -> dict[str, Any]:
    """Return packages that all runs have in the same version, and those that differ, by run."""
    installed = [run.manifest.get("packages") or {} for run in runs]
    known = [packages for packages in installed if packages]
    names = differing(known)
    same = {name: version for name, version in (known[0] if known else {}).items() if name not in names}
    return {"same": same, "differing": {name: [packages.get(name) for packages in installed] for name in names}}


def _with_figures(runs: Sequence[ReportedRun]) -> set[str]:
    drawn = [run for run in runs if any(figure.stem not in INLINE for figure in run.figures)]
    best = sorted(drawn, key=lambda run: math.inf if run.rank is None else run.rank)
    return {run.key for run in best[:WITH_FIGURES]}
