"""`logs/clients/<procID>/`: the curves of each client in TensorBoard, on the charts of the global model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from experiments_manager.events import RunEnd
from experiments_manager.federated.watching.round_watcher import CLIENTS_PREFIX, RoundWatcher, metrics_of
from experiments_manager.monitoring.tensorboard.event_files import EventFile, scalars_summary

if TYPE_CHECKING:
    from experiments_manager.federated.server.federation_state import RoundReport
    from experiments_manager.federated.strategies.server_strategy import ServerStrategy

MOST_CLIENTS = 32
"""Of more, TensorBoard's list of runs would be longer than its page; the report shows them all."""


class ClientCurves(RoundWatcher):
    """Writes loss and metrics of clients under the names that those of the global model have.

    Args:
        logs_dir: The folder `logs/` of the run.
        say: Called with a sentence once there are more clients than have curves.
    """

    def __init__(self, logs_dir: Path, say: Callable[[str], None] = lambda text: None) -> None:
        self._folder, self._say = logs_dir / "clients", say
        self._files: dict[int, EventFile] = {}
        self._first = 1
        self._last = 0
        self._has_said = False

    def on_begin(self, first_round: int) -> None:
        """Supersede what earlier sessions wrote of rounds that come again."""
        self._first, self._last = first_round, first_round - 1
        known = sorted(int(place.name) for place in self._folder.glob("*") if place.name.isdecimal())
        for number in known[:MOST_CLIENTS]:
            self._file(number).supersede_previous()

    def on_round(self, report: RoundReport, strategy: ServerStrategy) -> None:
        """Write the values of the clients of a round."""
        if report.round <= self._last:
            for file in self._files.values():
                file.restart(report.round)
        self._last = report.round
        for number in sorted({*report.train_by_client, *report.clients_by_client}):
            if number not in self._files and len(self._files) >= MOST_CLIENTS:
                self._tell_of_limit()
                continue
            train, evaluation = report.train_by_client.get(number, {}), report.clients_by_client.get(number, {})
            values = metrics_of(train) | {
                f"{CLIENTS_PREFIX}{name}": value for name, value in metrics_of(evaluation).items()
            }
            self._file(number).write(scalars_summary(values), report.round)

    def on_end(self, end: RunEnd) -> None:
        """Close the event files of all clients."""
        for file in self._files.values():
            file.close()
        self._files = {}

    def _file(self, number: int) -> EventFile:
        if number not in self._files:
            self._files[number] = EventFile(self._folder / str(number), self._first)
        return self._files[number]

    def _tell_of_limit(self) -> None:
        if not self._has_said:
            self._has_said = True
            self._say(
                f"TensorBoard shows the curves of {MOST_CLIENTS} clients; those of all of them are in clients.csv, "
                "clients/ and the report."
            )
