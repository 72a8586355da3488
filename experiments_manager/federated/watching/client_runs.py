"""`clients/<procID>/`: a run folder for each client, so that clients are listed, compared and reported as runs are.

Everything that there is to say of the clients of a round is written in one go when it is over, into files that are not
brought to the disk one by one: a hundred clients cost some milliseconds a round.
"""

from __future__ import annotations

import datetime
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments_manager.common.atomic import write_json
from experiments_manager.common.jsonable import to_jsonable
from experiments_manager.events import RunEnd
from experiments_manager.federated.watching.round_watcher import RoundWatcher, metrics_of
from experiments_manager.monitoring.growing_csv import GrowingCsv
from experiments_manager.monitoring.metrics_csv import KEY, metrics_row
from experiments_manager.runs import Run
from experiments_manager.runs.manifest import first_manifest
from experiments_manager.runs.run import SETTINGS
from experiments_manager.settings import Settings
from experiments_manager.training.state.monitor import Monitor
from experiments_manager.training.state.progress import Best

if TYPE_CHECKING:
    from experiments_manager.federated.server.federation_state import RoundReport
    from experiments_manager.federated.strategies.server_strategy import ServerStrategy

logger = logging.getLogger(__name__)

_SETTINGS = ("session_name", "monitor", "monitor_mode")
"""Settings that stand in the manifest of a client; all of them are in that of the federation."""
SECONDS_BETWEEN_MANIFESTS = 30.0
"""How often `run.json` says of each client how far it is, beside the beginning and the end."""


class ClientRuns(RoundWatcher):
    """Writes them.

    Args:
        run: The run of the global model.
        settings: Those of the federation.
        monitor: What is watched there. The best round of a client is judged by the same value, or by that of its
            training where it was not evaluated.
    """

    def __init__(self, run: Run, settings: Settings, monitor: Monitor) -> None:
        self._run, self._monitor = run, monitor
        self._clients: dict[int, _Client] = {}
        self._fields = {
            "hparams": to_jsonable(settings.hparams),
            "settings": {name: to_jsonable(settings.values()[name]) for name in _SETTINGS},
            "seed": settings.random_seed,
        }
        self._state, self._written = "running", 0.0
        self._end: str | None = None
        self._has_warned = False

    def on_begin(self, first_round: int) -> None:
        """Find the folders of earlier sessions, and drop the rows of rounds that come again."""
        manifest = self._run.manifest
        self._fields |= {name: manifest.get(name) for name in ("command", "git", "host", "start", "resumed")}
        for place in sorted(self._run.clients_dir.glob("*/run.json")):
            if place.parent.name.isdecimal() and not _writes_itself(place.parent):
                self._client(int(place.parent.name)).begin(first_round)
        self._write_manifests()

    def on_round(self, report: RoundReport, strategy: ServerStrategy) -> None:
        """Append a row for each client that trained or evaluated."""
        told = sorted({*report.train_by_client, *report.clients_by_client})
        numbers = [number for number in told if not _writes_itself(self._run.clients_dir / str(number))]
        known = len(self._clients)
        clients = {number: self._client(number) for number in numbers}
        if len(self._clients) > known or time.monotonic() - self._written > SECONDS_BETWEEN_MANIFESTS:
            self._write_manifests()
        for number, client in clients.items():
            train, evaluation = report.train_by_client.get(number, {}), report.clients_by_client.get(number, {})
            client.add(report.round, train, evaluation)

    def on_end(self, end: RunEnd) -> None:
        """Write to each client's run.json how the federation ended."""
        self._state = end.state
        self._end = datetime.datetime.now().astimezone().isoformat(timespec="milliseconds")
        for client in self._clients.values():
            client.table.close()
        self._write_manifests()

    def _client(self, number: int) -> _Client:
        if number not in self._clients:
            self._clients[number] = _Client(self._run.clients_dir / str(number), self._monitor, self._warn)
        return self._clients[number]

    def _write_manifests(self) -> None:
        first = first_manifest()
        try:
            for number, client in self._clients.items():
                client.path.mkdir(parents=True, exist_ok=True)
                fields = {**first, **self._fields, **client.fields(), "state": self._state, "end": self._end}
                fields["hparams"] = {**self._fields["hparams"], "procID": number}
                fields["federation"] = {"kind": "client", "proc_id": number, "of": self._run.name}
                write_json(client.path / "run.json", fields, sync=False)
        except OSError as error:
            self._warn(client.path, error)
        else:
            self._written = time.monotonic()
            self._has_warned = False

    def _warn(self, path: Path, error: OSError) -> None:
        if not self._has_warned:
            logger.warning("%s cannot be written: %s. The federation goes on.", path, error.strerror)
            self._has_warned = True


def _writes_itself(folder: Path) -> bool:
    """Return whether a client has its own run there: one on a machine of its own that shares the file system."""
    return (folder / SETTINGS).is_dir()


class _Client:
    """What is known of one client."""

    def __init__(self, path: Path, monitor: Monitor, warn: Callable[[Path, OSError], None]) -> None:
        self.path, self._monitor = path, monitor
        self.table = GrowingCsv(path / "metrics.csv", KEY, stays_open=False, sync=False, warn=warn)
        self._round, self._steps = 0, 0
        self._last: dict[str, float] = {}
        self._best: Best | None = None
        self._watched = monitor.name.removeprefix("val_")

    def begin(self, first: int) -> None:
        """Drop the rows from a round on, and know again what those before it say."""
        self._round, self._steps, self._last, self._best = 0, 0, {}, None
        for row in self.table.begin(first) or ():
            values = {name: float(value) for name, value in row.items() if name not in (KEY, "step")}
            self._note(int(row[KEY]), int(row["step"]), values)

    def add(self, number: int, train: Mapping[str, float], evaluation: Mapping[str, float]) -> None:
        """Append the row of a round."""
        if number <= self._round:
            self.begin(number)
        values = metrics_of(train) | {f"val_{name}": value for name, value in metrics_of(evaluation).items()}
        self._note(number, self._steps + int(train.get("num-steps", 0)), values)
        self.table.append([metrics_row(number, self._steps, values)])

    def fields(self) -> dict[str, Any]:
        """Return what `run.json` says of it."""
        best = self._best and to_jsonable({**vars(self._best), "name": self._watched})
        return {"epochs": self._round, "global_step": self._steps, "metrics": to_jsonable(self._last), "best": best}

    def _note(self, number: int, steps: int, values: Mapping[str, float]) -> None:
        self._round, self._steps, self._last = number, steps, dict(values)
        if self._watched != self._monitor.name and self._monitor.name in values:
            self._watched, self._best = self._monitor.name, None
        value = values.get(self._watched, math.nan)
        if self._monitor.is_better(value, self._best):
            self._best = Best(value, number, steps)
