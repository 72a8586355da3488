"""All clients in this process: a compiled model or a few, which the clients use in turn."""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments_manager.compat.flower import SecureProtocol
from experiments_manager.federated.client.private_answers import PrivateAnswers
from experiments_manager.federated.client.secure_answers import SecureAnswers
from experiments_manager.federated.flower import flower
from experiments_manager.federated.local.client import FederatedClient
from experiments_manager.federated.local.kept import Kept
from experiments_manager.federated.local.task import LocalTask
from experiments_manager.federated.local.trainer import LocalResult, LocalTrainer
from experiments_manager.federated.plan import FederationPlan
from experiments_manager.federated.simulation.clients import client_of
from experiments_manager.training.engine.context import TrainingContext

if TYPE_CHECKING:
    from flwr.app import Message

    from experiments_manager.federated.server.federation_state import RoundReport

_SECONDS_OF_A_SHORT_ROUND = 1.0
"""After a longer one it is worth while to compile more models, one for each processor."""

_SECONDS_TO_STOP = 10.0
"""For which a federation that is asked to stop waits until its clients heed that."""


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
    with contextlib.closing(fleet), _frozen_heap():
        yield fleet


@contextlib.contextmanager
def _frozen_heap() -> Iterator[None]:
    """Let garbage be looked for only among what is made inside.

    Messages refer to themselves. With all of TensorFlow to search, Python looks for such garbage so rarely that the
    models of dozens of rounds would pile up.
    """
    ours = gc.get_freeze_count() == 0
    if ours:
        gc.freeze()
    try:
        yield
    finally:
        if ours:
            gc.unfreeze()


class SimulatedFleet:
    """A `Fleet` of threads; see `simulated_fleet`."""

    kind = "simulation"
    keeps_state = False
    config: Mapping[str, Any] = {}

    def __init__(self, context: TrainingContext, server: LocalTrainer, workers: int) -> None:
        flower()
        from experiments_manager.federated.simulation.local_grid import LocalGrid

        self._context, self._server = context, server
        self._settings, self._devices = context.experiment.settings, context.experiment.devices
        self._plan = FederationPlan.of(self._settings)
        self._privacy = PrivateAnswers.of(self._settings, self._settings.random_seed)
        self._workers = min(workers, self._plan.clients)
        self._clients: dict[int, FederatedClient] = {}
        self._busy: set[FederatedClient] = set()
        self._lock = threading.Lock()
        self._participants: Sequence[int] = ()
        self._committed: dict[int, Kept] = {}
        self._given: dict[str, np.ndarray] = {}
        self._trainers: list[LocalTrainer] = []
        self._free: queue.SimpleQueue[LocalTrainer] = queue.SimpleQueue()
        # A client that hangs holds its model: where that may happen, the others have one more.
        self._wanted_trainers = 1 if self._plan.round_timeout is None else min(2, self._workers)
        self._is_closed = False
        self.grid = LocalGrid(self._make_client, range(self._plan.clients), workers=1, patience=self._patience)
        self._compiled = False

    def before_round(self, round: int) -> None:  # noqa: A002
        """Compile the models that are wanted and not there yet."""
        self._make_trainers()

    def after_round(self, report: RoundReport) -> None:
        """Take note of who took part, and want a model for each worker, if rounds are long; the first one compiles."""
        self._participants = report.participants
        if self._compiled and report.seconds > _SECONDS_OF_A_SHORT_ROUND:
            self._wanted_trainers = self._workers
        self._compiled = True

    def state(self) -> Mapping[str, np.ndarray]:
        """Return what the clients keep after a round; those whose weights did not count keep what they had."""
        for number, client in self._idle_clients():
            if client.kept is not None and number in self._participants:
                self._committed[number] = client.kept
        self._given = {
            f"{number}/{name}": value
            for number, kept in sorted(self._committed.items())
            for name, value in kept.arrays.items()
        }
        return self._given

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Give back to the clients what `state` returned, and let nobody wait for clients that hang."""
        if not _is_same(arrays, self._given):
            grouped: dict[int, dict[str, np.ndarray]] = {}
            for name, value in arrays.items():
                number, _, rest = name.partition("/")
                grouped.setdefault(int(number), {})[rest] = value
            self._committed = {number: Kept.of(held) for number, held in grouped.items()}
            self._given = dict(arrays)
        idle = dict(self._idle_clients())
        self._clients = idle  # those that hang are made again, when they can be asked again
        for number, client in idle.items():
            kept = self._committed.get(number)
            if client.kept is not kept:
                client.restore(kept)
        self._make_trainers()

    @property
    def inexact_reasons(self) -> Sequence[str]:
        """Why clients would not go on after a resume as if there had been none."""
        return [reason for _, client in self._idle_clients() for reason in client.inexact_reasons]

    def close(self) -> None:
        """Let go of data and models."""
        self._is_closed = True
        for _, client in self._idle_clients():
            client.close()
        for trainer in self._trainers:
            if trainer is not self._server:
                trainer.close()

    def _should_stop(self) -> bool:
        return self._is_closed or self._context.should_stop()

    def _patience(self) -> float:
        """Return how long to wait for clients whose answers are not waited for, before there is a checkpoint."""
        return _SECONDS_TO_STOP if self._context.should_stop() else 0.0

    def _idle_clients(self) -> list[tuple[int, FederatedClient]]:
        with self._lock:
            return [(number, client) for number, client in self._clients.items() if client not in self._busy]

    def _make_trainers(self) -> None:
        """Let so many models be free as are wanted; called while no client works but those that hang."""
        proximal = self._plan.strategy.get("strategy") == "FedProx"
        # The model of the run is for clients, too, unless their loss has a term of its own, or one may be left behind.
        is_shared = not proximal and self._plan.round_timeout is None
        while self._free.qsize() < self._wanted_trainers:
            if not self._trainers and is_shared:
                trainer = self._server
            else:
                first, like = self._context.experiment.train, self._server.beginning
                trainer = LocalTrainer.make(self._settings, self._devices, first, proximal=proximal, like=like)
            self._trainers.append(trainer)
            self._free.put(trainer)
        self.grid.workers = self._wanted_trainers

    def _client(self, number: int) -> FederatedClient:
        """Return a client; it is made where there is none, or where the former one hangs."""
        if number not in self._clients:
            kept, run = self._committed.get(number), self._context.run
            client = client_of(self._settings, number, self._plan.clients, run=run, kept=kept)
            client.should_stop = self._should_stop
            self._clients[number] = client
        return self._clients[number]

    def _make_client(self, number: int) -> Any:
        from experiments_manager.federated.client.messages import answer

        self._client(number)
        secure = SecureAnswers.of(self._settings)

        def reply(message: Message) -> Message:
            if SecureProtocol.is_stage(message.content):  # no model is needed
                return answer(message, None, number, secure=secure)
            trainer, client = self._free.get(), self._client(number)
            with self._lock:
                self._busy.add(client)
            try:
                work = OfClient(trainer, client, self._plan.keep_optimizer)
                return answer(message, work, number, self._privacy, secure)
            finally:
                with self._lock:
                    self._busy.discard(client)
                self._free.put(trainer)

        return reply


def _is_same(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(first[name] is second[name] for name in first)


class OfClient:
    """A trainer at work for one client."""

    def __init__(self, trainer: LocalTrainer, client: FederatedClient, keep: bool) -> None:
        self._trainer, self._client, self._keep = trainer, client, keep

    def train(self, weights: Mapping[str, np.ndarray], task: LocalTask) -> LocalResult:
        """Train with the client's data."""
        return self._trainer.train(self._client, weights, task, keep=self._keep)

    def evaluate(self, weights: Mapping[str, np.ndarray]) -> LocalResult:
        """Evaluate on the client's validation data."""
        return self._trainer.evaluate(self._client, weights)
