"""All clients in this process: a compiled model or a few, which the clients use in turn."""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import threading
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from flwr.app import Message

from experiments_manager.federated.checked_options import checked_options
from experiments_manager.federated.client.client_answers import ClientAnswers, Work
from experiments_manager.federated.fleet import Fleet
from experiments_manager.federated.local.client import ClientState, FederatedClient, client_of
from experiments_manager.federated.local.trainer import LocalTrainer
from experiments_manager.federated.message_records import grouped, ungrouped
from experiments_manager.federated.simulation.local_grid import Client, LocalGrid
from experiments_manager.federated.strategies.server_strategy import frozen_heap
from experiments_manager.training.engine.context import TrainingContext

if TYPE_CHECKING:
    from experiments_manager.federated.server.federation_state import RoundReport

_SECONDS_OF_A_SHORT_ROUND = 1.0
"""After a longer one it is worth while to compile more models, one for each processor."""
_SECONDS_TO_STOP = 10.0
"""For which a federation that is asked to stop waits until its clients heed that."""


class LocalFleet(Fleet):
    """Clients that are asked by threads of this process, where what they keep between rounds is, too.

    Args:
        context: The run of the global model.
        workers: How many clients train at a time.
    """

    keeps_state = False

    def __init__(self, context: TrainingContext, workers: int) -> None:
        self._context, self._settings = context, context.experiment.settings
        self._options = checked_options(self._settings)
        self._committed: dict[int, ClientState] = {}
        """What each client goes on from, by its number."""
        self._left: dict[int, ClientState | None] = {}
        """What each client was left with by the round that runs; it goes on from there if the round counts."""
        clients = range(self._options.clients)
        super().__init__(LocalGrid(self.make_client, clients, workers=workers, patience=self._patience))

    @abstractmethod
    def make_client(self, number: int) -> Client:
        """Return what answers messages to a client."""

    def after_round(self, report: RoundReport) -> None:
        """Let those who took part go on from what the round left them with."""
        left = {number: kept for number, kept in self._left.items() if number in report.participants and kept}
        self._committed |= left
        self._left = {}

    def state(self) -> Mapping[str, np.ndarray]:
        """Return what the clients keep after a round; those whose weights did not count keep what they had."""
        return ungrouped({number: kept.arrays for number, kept in sorted(self._committed.items())})

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go back to what `state` returned; each client does when it is asked next."""
        ours = self.state()
        if ours.keys() != arrays.keys() or any(ours[name] is not arrays[name] for name in ours):
            self._committed = {int(number): ClientState.of(held) for number, held in grouped(arrays).items()}
        self._left = {}

    def state_for(self, number: int, kind: str) -> ClientState | None:
        """Return what a client answers a message from: a new model is evaluated with what its training left."""
        committed = self._committed.get(number)
        return committed if kind.startswith("train") else self._left.get(number, committed)

    def _patience(self) -> float:
        """Return how long to wait for clients whose answers are not waited for, before there is a checkpoint."""
        return _SECONDS_TO_STOP if self._context.should_stop() else 0.0


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
    with contextlib.closing(fleet), frozen_heap():
        yield fleet


class SimulatedFleet(LocalFleet):
    """Clients that train in this process; see `simulated_fleet`."""

    def __init__(self, context: TrainingContext, server: LocalTrainer, workers: int) -> None:
        super().__init__(context, workers=1)
        self._server = server
        self._workers = min(workers, self._options.clients)
        self._clients: dict[int, FederatedClient] = {}
        self._busy: set[FederatedClient] = set()
        self._lock = threading.Lock()
        self._trainers: list[LocalTrainer] = []
        self._free: queue.SimpleQueue[LocalTrainer] = queue.SimpleQueue()
        # A client that hangs holds its model: where that may happen, the others have one more.
        self._wanted_trainers = 1 if self._options.round_timeout is None else min(2, self._workers)
        self._is_closed, self._has_compiled = False, False

    def after_round(self, report: RoundReport) -> None:
        """Want a model for each worker, if rounds are long; the first one compiles."""
        super().after_round(report)
        if self._has_compiled and report.seconds > _SECONDS_OF_A_SHORT_ROUND:
            self._wanted_trainers = self._workers
        self._has_compiled = True

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go back to what `state` returned, let nobody wait for clients that hang, and compile models."""
        super().restore(arrays)
        self._clients = dict(self._idle_clients())  # those that hang are made again, when they can be asked again
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

    def make_client(self, number: int) -> Client:
        """Return what answers messages to a client, whose data are read here."""
        self._client(number)
        answers = ClientAnswers.of(self._settings, number, self._settings.random_seed)

        def reply(message: Message) -> Message:
            kind = message.metadata.message_type
            work: Work = functools.partial(self._at_work, number, kind)
            return Message(answers.answer(kind, message.content, work), reply_to=message)

        return reply

    def _make_trainers(self) -> None:
        """Let so many models be free as are wanted; called while no client works but those that hang."""
        proximal = self._options.strategy == "FedProx"
        # The model of the run is for clients, too, unless their loss has a term of its own, or one may be left behind.
        is_shared = not proximal and self._options.round_timeout is None
        while self._free.qsize() < self._wanted_trainers:
            if not self._trainers and is_shared:
                trainer = self._server
            else:
                first, devices = self._context.experiment.train, self._context.experiment.devices
                like = self._server.beginning
                trainer = LocalTrainer.make(self._settings, devices, first, proximal=proximal, like=like)
            self._trainers.append(trainer)
            self._free.put(trainer)
        self.grid.workers = self._wanted_trainers

    @contextlib.contextmanager
    def _at_work(self, number: int, kind: str) -> Iterator[tuple[LocalTrainer, FederatedClient]]:
        trainer, client = self._free.get(), self._client(number)
        with self._lock:
            self._busy.add(client)
        try:
            client.restore(self.state_for(number, kind))
            yield trainer, client
            self._left[number] = client.kept
        finally:
            with self._lock:
                self._busy.discard(client)
            self._free.put(trainer)

    def _client(self, number: int) -> FederatedClient:
        """Return a client; it is made where there is none, or where the former one hangs."""
        if number not in self._clients:
            kept, run = self._committed.get(number), self._context.run
            client = client_of(self._settings, number, self._options.clients, run=run, kept=kept)
            client.should_stop = lambda: self._is_closed or self._context.should_stop()
            self._clients[number] = client
        return self._clients[number]

    def _idle_clients(self) -> list[tuple[int, FederatedClient]]:
        with self._lock:
            return [(number, client) for number, client in self._clients.items() if client not in self._busy]
