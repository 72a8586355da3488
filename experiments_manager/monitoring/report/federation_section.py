"""The section of the page about a federation: who took part, curves of clients, traffic, clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments_manager.common.display.quantities import format_bytes
from experiments_manager.monitoring.plots import rounds as plots
from experiments_manager.monitoring.plots.curves import VALIDATION, LearningCurves
from experiments_manager.monitoring.report.collect import ReportedRun
from experiments_manager.monitoring.report.federation import (
    MOST_REASONS,
    FederationSummary,
    read_federation,
    spans,
)
from experiments_manager.monitoring.report.inline_svg import inline_svg
from experiments_manager.runs import Run

if TYPE_CHECKING:
    from markupsafe import Markup

MOST_CHARTS = 8
"""Metrics of clients that are drawn."""


def federation_section(run: ReportedRun) -> dict[str, Any] | None:
    """Return what the template shows of a federation; `None` of a run that is none.

    Args:
        run: The run that the page is about.
    """
    told = read_federation(Run(run.row.path))
    if told is None:
        return None
    counts = {name: _counts(run.curves, name) for name in ("bytes_sent", "bytes_received")}
    return {
        "strategy": (run.manifest.get("federation") or {}).get("strategy"),
        "clients": len(told.clients),
        "share": told.took_part.sum() / max(1, told.asked.sum()),
        "missing": int((told.asked & ~told.took_part).sum()),
        "traffic": {name: format_bytes(float(np.nansum(values))) for name, values in counts.items()},
        "map": _map(told),
        "charts": _charts(told, run.curves),
        "left_out": [(each.client, spans(each.rounds), len(each.rounds), each.reason) for each in told.left_out],
        "most_reasons": MOST_REASONS,
        "clusters": told.members if len(told.members) > 1 else [],
        "measures": list(dict.fromkeys(name for each in told.members for name in each.get("metrics") or {})),
        "ari": told.clusters.get("ari"),
        "clusters_figure": next((figure for figure in run.figures if figure.stem == "clusters"), None),
    }


def _counts(curves: LearningCurves, name: str) -> np.ndarray:
    return curves.columns.get(name, np.zeros(len(curves.epochs)))


def _map(told: FederationSummary) -> Markup:
    name = next(iter([name for name in ("loss", *told.metrics) if name in told.metrics]), "")
    values = told.metrics.get(name, np.full(told.asked.shape, np.nan))
    figure = plots.participation_map(told.clients, told.rounds, told.asked, told.took_part, values, name)
    return inline_svg(figure, "who took part")


def _charts(told: FederationSummary, curves: LearningCurves) -> list[Markup]:
    names = list(dict.fromkeys(name.removeprefix(VALIDATION) for name in told.metrics))
    figures = {
        f"{name} of clients": plots.client_curves(name, curves, told.rounds, told.metrics, told.groups)
        for name in sorted(names, key=lambda name: name != "loss")[:MOST_CHARTS]
    }
    missing = (told.asked & ~told.took_part).sum(axis=0)
    figures["clients a round"] = plots.attendance(told.rounds, told.took_part.sum(axis=0), missing)
    if len(curves.epochs) and "bytes_sent" in curves.columns:
        sent, received = _counts(curves, "bytes_sent"), _counts(curves, "bytes_received")
        figures["bytes a round"] = plots.traffic(curves.epochs, sent, received)
    return [inline_svg(figure, title) for title, figure in figures.items()]
