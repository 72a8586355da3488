"""Curves over epochs: of one run, or of several laid over each other."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from experiments_manager.events import metrics_among
from experiments_manager.monitoring.plots import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VALIDATION = "val_"
NO_METRICS = ("epoch", "step", "learning_rate")
TRAIN_COLOUR, VALIDATION_COLOUR = canvas.PALETTE[:2]
"""Colours of the lines of a run that is alone."""
MOST_PANELS = 24
LOG_RATIO = 50.0
"""Positive values that span more than this factor are drawn on a logarithmic axis."""
_LARGEST = 1e300
"""Numbers beyond are left out as infinities are: axes cannot be computed for them."""
_PANEL = (3.3, 2.1)  # inches
_LARGE_PANEL = (5.8, 3.4)
"""The panel of a comparison that has just one."""
_LEFT, _GAP, _TOP, _BOTTOM, _RIGHT = 0.62, 0.72, 0.42, 0.46, 0.15
_LEGEND_LINE = 0.19


@dataclasses.dataclass(frozen=True)
class LearningCurves:
    """What one run logged, epoch by epoch."""

    label: str
    epochs: np.ndarray
    """Integers [rows]."""
    columns: Mapping[str, np.ndarray]
    """Floats [rows] by the name of the value; NaN where a row has none."""
    best_epoch: int | None = None
    key: str = ""
    """Identity of its lines in an SVG."""
    unit: str = "epoch"
    """What its epochs are called."""

    @classmethod
    def from_rows(
        cls, label: str, rows: Sequence[Mapping[str, str]], best_epoch: int | None = None, *, unit: str = "epoch"
    ) -> LearningCurves:
        """Take the curves from rows of a `metrics.csv`."""
        names = dict.fromkeys(name for row in rows for name in row if name not in ("epoch", "step"))
        columns = {name: np.array([_number(row.get(name)) for row in rows]) for name in names}
        return cls(label, np.array([int(row["epoch"]) for row in rows], int), columns, best_epoch, unit=unit)

    def at_best(self, name: str) -> float:
        """Give a value at the best epoch; NaN where there is none."""
        if self.best_epoch is None or name not in self.columns:
            return math.nan
        values = self.columns[name][self.epochs == self.best_epoch]
        return float(values[0]) if len(values) else math.nan


def metric_names(runs: Sequence[LearningCurves]) -> list[str]:
    """Name the metrics that the runs have between them, without `val_`, the loss first."""
    names = dict.fromkeys(
        name.removeprefix(VALIDATION) for run in runs for name in metrics_among(run.columns) if name not in NO_METRICS
    )
    return sorted(names, key=lambda name: name != "loss")


def learning_curves(run: LearningCurves, *, names: Sequence[str] | None = None, legend: bool = True) -> Figure:
    """Draw the metrics of one run, one panel each: training dashed, validation solid, the best epoch marked.

    Args:
        run: What is drawn.
        names: The metrics, all by default.
        legend: Whether to explain the lines below the panels.
    """
    names = metric_names([run]) if names is None else names
    return _panels([run], names, [(TRAIN_COLOUR, VALIDATION_COLOUR)], legend=_legend_of_one(run) if legend else [])


def overlaid_curves(
    runs: Sequence[LearningCurves],
    *,
    names: Sequence[str] | None = None,
    colours: Sequence[str] = (),
    legend: bool = True,
) -> Figure:
    """Draw the metrics of several runs, one panel a metric; a run that lacks a metric is not in its panel.

    Args:
        runs: What is drawn, each under its label.
        names: The metrics, all by default.
        colours: Colour of each run.
        legend: Whether to explain colours and lines below the panels.
    """
    colours = list(colours) or [canvas.colour(number) for number in range(len(runs))]
    entries = [(run.label, colour, "-") for run, colour in zip(runs, colours, strict=True)]
    entries += [
        ("train", canvas.FAINT, "--"),
        ("validation", canvas.FAINT, "-"),
        (f"best {_unit(runs)}", canvas.FAINT, "o"),
    ]
    names = metric_names(runs) if names is None else names
    return _panels(runs, names, [(colour, colour) for colour in colours], legend=entries if legend else [])


def learning_rate_curve(run: LearningCurves) -> Figure:
    """Draw the learning rate of one run at the end of each epoch."""
    with canvas.figure_style():
        figure, axes = new_panel()
        values = run.columns.get("learning_rate", np.full(len(run.epochs), np.nan))
        _draw_line(axes, run.epochs, values, canvas.colour(2), "-")
        _mark_best(axes, run, line=True)
        finish_panel(axes, "learning rate", [values], run.epochs, run.unit)
    return figure


def new_panel() -> tuple[Figure, Axes]:
    """Make a figure that has one panel, of the size of all; within `figure_style`."""
    figure = canvas.new_figure(_LEFT + _PANEL[0] + _RIGHT, _BOTTOM + _PANEL[1] + _TOP)
    return figure, canvas.place(figure, _LEFT, _BOTTOM, *_PANEL)


def _panels(
    runs: Sequence[LearningCurves],
    names: Sequence[str],
    colours: Sequence[tuple[str, str]],
    legend: Sequence[tuple[str, str, str]],
) -> Figure:
    left_out, names = len(names[MOST_PANELS:]), names[:MOST_PANELS] or [""]
    across = min(len(names), 3)
    down = math.ceil(len(names) / across)
    panel = _LARGE_PANEL if len(names) == 1 and len(runs) > 1 and legend else _PANEL
    width = _LEFT + across * panel[0] + (across - 1) * _GAP + _RIGHT
    per_line = _entries_per_line(legend, width)
    below = _LEGEND_LINE * math.ceil(len(legend) / per_line) + 0.1 if legend else 0.0
    height = below + down * (panel[1] + _TOP + _BOTTOM)
    with canvas.figure_style():
        figure = canvas.new_figure(width, height)
        for number, name in enumerate(names):
            row, column = divmod(number, across)
            left = _LEFT + column * (panel[0] + _GAP)
            bottom = height - (row + 1) * (panel[1] + _TOP + _BOTTOM) + _BOTTOM
            _draw_metric(canvas.place(figure, left, bottom, *panel), name, runs, colours)
        if legend:
            _draw_legend(figure, legend, per_line)
        if left_out:
            text = f"{left_out} further metrics are in metrics.csv"
            figure.text(1.0, 0.005, text, ha="right", va="bottom", fontsize=8, color=canvas.FAINT)
    return figure


def _draw_metric(axes: Axes, name: str, runs: Sequence[LearningCurves], colours: Sequence[tuple[str, str]]) -> None:
    drawn: list[np.ndarray] = []
    for run, (train_colour, validation_colour) in zip(runs, colours, strict=True):
        train, validation = run.columns.get(name), run.columns.get(VALIDATION + name)
        if train is not None:
            _draw_line(axes, run.epochs, train, train_colour, "--", run.key)
            drawn.append(train)
        if validation is not None:
            _draw_line(axes, run.epochs, validation, validation_colour, "-", run.key)
            drawn.append(validation)
        shown = name if validation is None else VALIDATION + name
        if abs(run.at_best(shown)) <= _LARGEST:
            colour = train_colour if validation is None else validation_colour
            (dot,) = axes.plot([run.best_epoch], [run.at_best(shown)], "o", color=colour, markersize=5, zorder=4)
            dot.set_gid(run.key or None)
    if len(runs) == 1:
        _mark_best(axes, runs[0], line=True)
    last = max((run.epochs.max() for run in runs if len(run.epochs)), default=1)
    finish_panel(axes, name, drawn, np.array([last]), _unit(runs))


def _draw_line(axes: Axes, epochs: np.ndarray, values: np.ndarray, colour: str, style: str, key: str = "") -> None:
    values = np.where(np.abs(values) > _LARGEST, np.nan, values)
    alone = np.isfinite(values).sum() == 1
    look = {"color": colour, "linewidth": 1.5, "markersize": 3.5, "marker": "o" if alone else None}
    (line,) = axes.plot(epochs, values, style, **look)
    line.set_gid(key or None)


def _mark_best(axes: Axes, run: LearningCurves, *, line: bool) -> None:
    if run.best_epoch is not None and line:
        axes.axvline(run.best_epoch, color=canvas.FAINT, linewidth=0.9, linestyle=":", zorder=1)


def _unit(runs: Sequence[LearningCurves]) -> str:
    units = {run.unit for run in runs}
    return units.pop() if len(units) == 1 else "epoch"


def finish_panel(
    axes: Axes, title: str, drawn: Sequence[np.ndarray], epochs: np.ndarray, unit: str, *, from_zero: bool = False
) -> None:
    """Set title, grid and scales of a panel in which values were drawn over epochs."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title(canvas.shortened(title, 44))
    axes.set_xlabel(unit, labelpad=1)
    axes.grid(visible=True)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if len(epochs) and epochs.max() <= 1:
        axes.set_xlim(0, 2)
    values = np.concatenate([np.ravel(part) for part in drawn]) if drawn else np.empty(0)
    values = values[np.abs(values) <= _LARGEST]
    if not len(values):
        axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, ha="center", color=canvas.FAINT)
    elif from_zero:
        axes.set_ylim(0, 1.08 * values.max() or 1)
        axes.yaxis.set_major_locator(MaxNLocator(5))
    elif values.min() > 1 / _LARGEST and values.max() > LOG_RATIO * values.min():
        canvas.make_logarithmic(axes.yaxis, values.min(), values.max())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))


def _legend_of_one(run: LearningCurves) -> list[tuple[str, str, str]]:
    entries = [("train", TRAIN_COLOUR, "--")]
    if any(name.startswith(VALIDATION) for name in run.columns):
        entries.append(("validation", VALIDATION_COLOUR, "-"))
    if run.best_epoch is not None:
        entries.append((f"best: {run.unit} {run.best_epoch}", canvas.FAINT, ":"))
    return entries


def _entries_per_line(legend: Sequence[tuple[str, str, str]], width: float) -> int:
    widest = canvas.text_width([label for label, _, _ in legend], 8.5) + 0.55
    return max(1, min(len(legend) or 1, int((width - _LEFT) / widest)))


def _draw_legend(figure: Figure, legend: Sequence[tuple[str, str, str]], per_line: int) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=colour,
            linewidth=1.6,
            label=label,
            **({"marker": "o", "linestyle": ""} if style == "o" else {"linestyle": style}),
        )
        for label, colour, style in legend
    ]
    left = _LEFT / figure.get_size_inches()[0]
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(left, 0.0), ncols=per_line, handlelength=1.8, borderpad=0.2
    )


def _number(cell: str | None) -> float:
    try:
        return float(cell) if cell else math.nan
    except ValueError:  # edited by hand
        return math.nan
