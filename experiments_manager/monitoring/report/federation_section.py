"""The section of the page about a federation: who took part, curves of clients, traffic, clusters."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments_manager.common.display.quantities import format_bytes
from experiments_manager.monitoring.growing_csv import read_rows
from experiments_manager.monitoring.plots import rounds as plots
from experiments_manager.monitoring.plots.curves import VALIDATION, LearningCurves
from experiments_manager.monitoring.report.collect import ReportedRun
from experiments_manager.monitoring.report.inline_svg import inline_svg
from experiments_manager.runs import Run

if TYPE_CHECKING:
    from markupsafe import Markup

_NO_METRICS = ("round", "client", "took_part", "left_out", "num-examples", "num-steps")
MOST_REASONS = 30
"""Clients that are listed with why they were left out, those first that were most often."""


@dataclasses.dataclass(frozen=True)
class LeftOutCount:
    """A client that was left out at least once."""

    client: str
    rounds: list[int]
    reason: str
    """Of the last time."""


@dataclasses.dataclass(frozen=True)
class FederationSummary:
    """Who took part in which round, and what came of it."""

    clients: list[str]
    """Numbers, ordered by cluster where there are clusters; `?` for one that never told its number."""
    rounds: np.ndarray
    """Integers [rounds], with no gaps."""
    asked: np.ndarray
    """Booleans [clients, rounds]."""
    took_part: np.ndarray
    """The same."""
    metrics: Mapping[str, np.ndarray]
    """Floats [clients, rounds] by name; NaN where a client has none."""
    left_out: list[LeftOutCount]
    clusters: Mapping[str, Any]
    """The content of clusters.json; empty where the strategy has none."""

    @property
    def groups(self) -> list[int]:
        """The index of the cluster of each client; 0 where it is in none."""
        of_client = {str(number): index for index, each in enumerate(self.members) for number in each["members"]}
        return [of_client.get(client, 0) for client in self.clients]

    @property
    def members(self) -> list[Mapping[str, Any]]:
        """The clients of each cluster, after the last round."""
        return self.clusters.get("clusters") or []


def read_federation(run: Run) -> FederationSummary | None:
    """Read it; `None` where the run is no federation, or no round of it is over."""
    try:
        _, rows = read_rows(run.path / "clients.csv", "round")
    except OSError:
        return None
    if not rows:
        return None
    clusters = _read_clusters(run.path / "clusters.json")
    clients = _ordered({row.get("client", "?") for row in rows}, clusters.get("clusters") or [])
    rounds = np.arange(1, max(int(row["round"]) for row in rows) + 1)
    place = {client: index for index, client in enumerate(clients)}
    shape = (len(clients), len(rounds))
    asked, took_part = np.zeros(shape, bool), np.zeros(shape, bool)
    names = dict.fromkeys(name for row in rows for name in row if name not in _NO_METRICS)
    metrics = {name: np.full(shape, np.nan) for name in names}
    for row in rows:
        at = place[row.get("client", "?")], int(row["round"]) - 1
        asked[at], took_part[at] = True, row.get("took_part") == "1"
        for name in names:
            metrics[name][at] = _number(row.get(name))
    return FederationSummary(clients, rounds, asked, took_part, metrics, _left_out(rows), clusters)


def _ordered(clients: set[str], clusters: Sequence[Mapping[str, Any]]) -> list[str]:
    cluster_of = {str(number): index for index, each in enumerate(clusters) for number in each["members"]}
    known = [client for client in clients if client.isdecimal()]
    known.sort(key=lambda client: (cluster_of.get(client, len(clusters)), int(client)))
    return [*known, *sorted(clients - {*known})]


def _left_out(rows: Sequence[Mapping[str, str]]) -> list[LeftOutCount]:
    found: dict[str, LeftOutCount] = {}
    for row in rows:
        if "left_out" in row:
            client = row.get("client", "?")
            rounds = found[client].rounds if client in found else []
            found[client] = LeftOutCount(client, [*rounds, int(row["round"])], row["left_out"])
    return sorted(found.values(), key=lambda each: -len(each.rounds))


def _read_clusters(file: Path) -> dict[str, Any]:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        return told if all("members" in each for each in told["clusters"]) else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _number(cell: str | None) -> float:
    try:
        return float(cell) if cell else np.nan
    except ValueError:  # edited by hand
        return np.nan


def spans(numbers: Sequence[int]) -> str:
    """Write numbers as one reads them: `1 to 3, 7`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}, {b}" if b == a + 1 else f"{a} to {b}" for a, b in parts)


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
