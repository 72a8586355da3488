"""All clients in this process: a compiled model or a few, which the clients use in turn."""

from __future__ import annotations

import contextlib
import os
import queue
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments_manager.federated.client.private_answers import PrivateAnswers
from experiments_manager.federated.flower import flower
from experiments_manager.federated.plan import FederationPlan
from experiments_manager.federated.simulation.clients import client_of
from experiments_manager.training.engine.context import TrainingContext
from experiments_manager.training.local.task import LocalTask
from experiments_manager.training.local.trainer import Client, LocalResult, LocalTrainer

if TYPE_CHECKING:
    from flwr.app import Message

    from experiments_manager.federated.server.federation_state import RoundReport

_SECONDS_OF_A_SHORT_ROUND = 1.0
"""After a longer one it is worth while to compile more models, one for each processor."""


@contextlib.contextmanager
def simulated_fleet(
    context: TrainingContext, server: LocalTrainer, workers: int | None = None
) -> Iterator[SimulatedFleet]:
    """Give the clients of a run.

    Args:
        context: The run of the global model.
        server: Trains on its model.
        workers: How many clients train at a time; by default one for each processor. Results do not depend on it.
    """
    fleet = SimulatedFleet(context, server, workers or os.cpu_count() or 1)
    try:
        yield fleet
    finally:
        fleet.close()


class SimulatedFleet:
    """A `Fleet` of threads; see `simulated_fleet`."""

    kind = "simulation"
    keeps_state = False

    def __init__(self, context: TrainingContext, server: LocalTrainer, workers: int) -> None:
        flower()
        from experiments_manager.federated.simulation.local_grid import LocalGrid

        self._settings, self._devices = context.experiment.settings, context.experiment.devices
        self._plan = FederationPlan.of(self._settings)
        self._privacy = PrivateAnswers.of(self._settings, self._settings.random_seed)
        self._workers = min(workers, self._plan.clients)
        self._clients: dict[int, Client] = {}
        self._kept: dict[int, list[np.ndarray]] = {}
        self._server = server
        self._trainers: list[LocalTrainer] = []
        self._free: queue.SimpleQueue[LocalTrainer] = queue.SimpleQueue()
        self._wanted_trainers, self._compiled = 1, False
        self.grid = LocalGrid(self._make_client, range(self._plan.clients), workers=self._workers)

    def before_round(self, round: int) -> None:  # noqa: A002
        """Compile the models that are wanted and not there yet."""
        self._make_trainers(self._wanted_trainers)

    def after_round(self, report: RoundReport) -> None:
        """Want a model for each worker, if rounds are long enough; the first one is long because it compiles."""
        if self._compiled and report.seconds > _SECONDS_OF_A_SHORT_ROUND:
            self._wanted_trainers = self._workers
        self._compiled = True

    def state(self) -> Mapping[str, np.ndarray]:
        """Return what clients keep of their optimizers."""
        return {
            f"{number}/{index:04d}": value
            for number, client in sorted(self._clients.items())
            for index, value in enumerate(client.kept or [])
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Give it back to them."""
        self._kept = {}
        for name in sorted(arrays):
            self._kept.setdefault(int(name.split("/")[0]), []).append(arrays[name])
        for number, client in self._clients.items():
            client.kept = self._kept.get(number)

    def close(self) -> None:
        """Let go of the models."""
        for trainer in self._trainers:
            if trainer is not self._server:
                trainer.close()

    def _make_trainers(self, count: int) -> None:
        """Let so many models be there; the first is that of the run, unless the loss has a term of its own."""
        proximal = self._plan.strategy.get("strategy") == "FedProx"
        while len(self._trainers) < count:
            if not self._trainers and not proximal:
                trainer = self._server
            else:
                trainer = LocalTrainer.make(self._settings, self._devices, self._client(0), proximal=proximal)
            self._trainers.append(trainer)
            self._free.put(trainer)

    def _client(self, number: int) -> Client:
        if number not in self._clients:
            client = client_of(self._settings, number, self._plan.clients)
            client.kept = self._kept.get(number)
            self._clients[number] = client
        return self._clients[number]

    def _make_client(self, number: int) -> Any:
        from experiments_manager.federated.client.messages import answer

        client = self._client(number)

        def reply(message: Message) -> Message:
            trainer = self._free.get()
            try:
                return answer(message, OfClient(trainer, client, self._plan.keep_optimizer), number, self._privacy)
            finally:
                self._free.put(trainer)

        return reply


class OfClient:
    """A trainer at work for one client."""

    def __init__(self, trainer: LocalTrainer, client: Client, keep: bool) -> None:
        self._trainer, self._client, self._keep = trainer, client, keep

    def train(self, weights: Mapping[str, np.ndarray], task: LocalTask) -> LocalResult:
        """Train with the client's data."""
        return self._trainer.train(self._client, weights, task, keep=self._keep)

    def evaluate(self, weights: Mapping[str, np.ndarray]) -> LocalResult:
        """Evaluate on the client's validation data."""
        return self._trainer.evaluate(self._client, weights)
