"""A federation in one process as an ordinary run: a round is an epoch of the global model.

So all that a run has, a federation has too: its folder, `metrics.csv` with a row a round, validation on the server,
early stopping, checkpoints, versions that are exported as the global model improves, reports, going on after a kill.
"""

from __future__ import annotations

import contextlib
import functools
import os
import queue
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from experiments_manager.federated.flower import flower
from experiments_manager.federated.plan import FederationPlan
from experiments_manager.runs import Run
from experiments_manager.settings import Settings, load_settings
from experiments_manager.training.engine import runner
from experiments_manager.training.engine.context import Interrupted, TrainingContext
from experiments_manager.training.engine.outcome import RunResult
from experiments_manager.training.errors import TrainingError
from experiments_manager.training.feeds.array_feed import ArrayFeed
from experiments_manager.training.local.trainer import Client, LocalResult, LocalTrainer
from experiments_manager.training.setup.experiment import dataset_feed
from experiments_manager.training.setup.seeds import derive

_SECONDS_OF_A_SHORT_ROUND = 1.0
"""After a longer one it is worth while to compile more models, one for each processor."""


def simulate(settings: Settings, *, workers: int | None = None, **options: Any) -> RunResult:
    """Train a federation whose clients are all in this process, in a run folder.

    Args:
        settings: With `federated["clients"]`; the rounds are its epochs.
        workers: How many clients train at a time; by default one for each processor. Results do not depend on it.
        **options: As for `runner.start_run`.

    Raises:
        FederationError: The setting `federated` is wrong, or a round failed.
    """
    _check(settings)
    return runner.start_run(settings, **_options(workers), **options)


def simulate_or_resume(settings: Settings, run_name: str, *, workers: int | None = None, **options: Any) -> RunResult:
    """Go on with the federation of this name, or start it where there is none; see `runner.start_or_resume`."""
    _check(settings)
    return runner.start_or_resume(settings, run_name, **_options(workers), **options)


def resume(run: Run, overrides: Mapping[str, Any] = {}, *, workers: int | None = None, **options: Any) -> RunResult:
    """Go on with such a run from the last round of its newest checkpoint; see `runner.resume_run`."""
    return runner.resume_run(run, overrides, **_options(workers), **options)


def _options(workers: int | None) -> dict[str, Any]:
    return {"shares_arrays": True, "make_epoch_trainer": functools.partial(_simulation, workers=workers)}


def _check(settings: Settings) -> None:
    """Raise what is wrong before anything is built."""
    flower()
    from experiments_manager.federated.strategies.catalogue import server_strategy

    plan = FederationPlan.of(settings)
    if not settings.has("federated_strategy"):
        server_strategy(plan.strategy)


@contextlib.contextmanager
def _simulation(context: TrainingContext, workers: int | None) -> Iterator[Simulation]:
    simulation = Simulation(context, workers or os.cpu_count() or 1)
    context.run.update(federation={"kind": "simulation", "clients": simulation.plan.clients})
    try:
        yield simulation
    finally:
        simulation.close()


class Simulation:
    """Trains the rounds of a run; an `EpochTrainer`.

    Args:
        context: The run of the global model.
        workers: How many clients train at a time.
    """

    def __init__(self, context: TrainingContext, workers: int) -> None:
        flower()
        from experiments_manager.federated.server.local_grid import LocalGrid

        self._context, self._settings = context, context.experiment.settings
        self.plan = FederationPlan.of(self._settings)
        self._workers = min(workers, self.plan.clients)
        self._clients: dict[int, Client] = {}
        self._kept: dict[int, list[np.ndarray]] = {}
        self._server = LocalTrainer(context.experiment, context.loops)
        self._trainers: list[LocalTrainer] = []
        self._free: queue.SimpleQueue[LocalTrainer] = queue.SimpleQueue()
        self._grid = LocalGrid(self._make_client, range(self.plan.clients), workers=self._workers)
        self._state: Any = None

    def train_epoch(self, context: TrainingContext) -> dict[str, float]:
        """Run the next round; its weights are in the model afterwards."""
        from experiments_manager.federated.server.federation_state import FederationState
        from experiments_manager.federated.server.rounds.loop import run_rounds
        from experiments_manager.federated.server.rounds.plan import RoundHooks, RoundPlan

        if context.should_stop():
            raise Interrupted
        state = self._state or FederationState(0, self._server.weights())
        reports: list[Any] = []
        hooks = RoundHooks(
            on_round=lambda report, after: reports.append(report),
            on_message=lambda text: context.dispatch("on_message", text),
            should_stop=context.should_stop,
        )
        plan = RoundPlan(
            rounds=state.round + 1,
            seed=self._settings.random_seed,
            min_clients=self.plan.strategy["min_clients"],
            round_timeout=self.plan.round_timeout,
            train_config={"local-epochs": self.plan.local_epochs},
        )
        self._make_trainers()
        after = run_rounds(self._grid, self._make_strategy(), state, plan, hooks)
        if after.round == state.round:
            raise Interrupted
        self._state, (report,) = after, reports
        self._take_over(after, report, context)
        return {name: value for name, value in report.train.items() if name != "num-examples"}

    def state(self) -> tuple[dict[str, Any], dict[str, tf.Tensor]]:
        """Return the strategy's memory, and what clients keep from one round to the next."""
        if self._state is None:
            return {"round": 0}, {}
        tensors = {f"global/{name}": value for name, value in self._state.arrays.items()}
        tensors |= {f"strategy/{name}": value for name, value in self._state.strategy_arrays.items()}
        for number, client in sorted(self._clients.items()):
            tensors |= {f"clients/{number}/{index:04d}": value for index, value in enumerate(client.kept or [])}
        plain = {"round": self._state.round, "strategy": dict(self._state.strategy), "order": list(self._state.arrays)}
        return plain, {name: tf.constant(value) for name, value in tensors.items()}

    def restore(self, plain: Mapping[str, Any], tensors: Mapping[str, tf.Tensor]) -> None:
        """Go back to what `state` returned."""
        from experiments_manager.federated.server.federation_state import FederationState

        if not plain["round"]:
            self._state = None
            return
        arrays = {name: np.asarray(value) for name, value in tensors.items()}
        strategy = {
            name.removeprefix("strategy/"): value for name, value in arrays.items() if name.startswith("strategy/")
        }
        weights = {name: arrays[f"global/{name}"] for name in plain["order"]}
        self._state = FederationState(plain["round"], weights, plain["strategy"], strategy)
        for name in sorted(name for name in arrays if name.startswith("clients/")):
            self._kept.setdefault(int(name.split("/")[1]), []).append(arrays[name])

    def close(self) -> None:
        """Let go of the models."""
        for trainer in self._trainers[1:]:
            trainer.close()

    def _take_over(self, state: Any, report: Any, context: TrainingContext) -> None:
        """Put the global weights into the model, and count the round as a step."""
        progress = context.experiment.state.progress
        self._server.put_back(state.arrays, state.round)
        progress.global_step, progress.step = state.round, 1
        context.experiment.state.step.assign(state.round)
        for entry in report.left_out:
            context.dispatch("on_message", f"Round {report.round}: client {entry.proc_id} was left out. {entry.reason}")
        if report.seconds > _SECONDS_OF_A_SHORT_ROUND:
            self._make_trainers(self._workers)

    def _make_strategy(self) -> Any:
        from experiments_manager.federated.strategies.catalogue import checked_strategy, server_strategy

        if self._settings.has("federated_strategy"):
            return checked_strategy(self._settings.call("federated_strategy"))
        return server_strategy(self.plan.strategy)

    def _make_trainers(self, count: int = 1) -> None:
        """Let so many models be there; the first is that of the run, unless the loss has a term of its own."""
        proximal = self.plan.strategy.get("strategy") == "FedProx"
        while len(self._trainers) < count:
            if not self._trainers and not proximal:
                trainer = self._server
            else:
                first = self._client(0)
                trainer = LocalTrainer.make(self._settings, self._context.experiment.devices, first, proximal=proximal)
            self._trainers.append(trainer)
            self._free.put(trainer)

    def _client(self, number: int) -> Client:
        if number not in self._clients:
            client = client_of(self._settings, number, self.plan.clients)
            client.kept = self._kept.pop(number, None)
            self._clients[number] = client
        return self._clients[number]

    def _make_client(self, number: int) -> Any:
        from experiments_manager.federated.client.messages import answer

        client = self._client(number)

        def reply(message: Any) -> Any:
            trainer = self._free.get()
            try:
                return answer(message, _OfClient(trainer, client, self.plan.keep_optimizer), number)
            finally:
                self._free.put(trainer)

        return reply


class _OfClient:
    """A trainer at work for one client."""

    def __init__(self, trainer: LocalTrainer, client: Client, keep: bool) -> None:
        self._trainer, self._client, self._keep = trainer, client, keep

    def train(self, weights: Mapping[str, np.ndarray], **options: Any) -> LocalResult:
        return self._trainer.train(self._client, weights, keep=self._keep, **options)

    def evaluate(self, weights: Mapping[str, np.ndarray]) -> LocalResult:
        return self._trainer.evaluate(self._client, weights)


def client_of(settings: Settings, number: int, clients: int) -> Client:
    """Return a client with its own data: that of `dataset` where `hparams["procID"]` is its number.

    Args:
        settings: Those of the federation.
        number: Of the client, from 0.
        clients: How many there are.

    Raises:
        TrainingError: It has no training data.
    """
    overrides = dict(settings.overrides) | {"hparams.procID": number}
    own = load_settings(settings.file, overrides | {"federated": {**settings.federated, "clients": clients}})
    train = dataset_feed(own, "train")
    if train is None:
        raise TrainingError(
            f'dataset: client {number} has no training data. Expected data for `dataset("train")`, got None.'
        )
    if isinstance(train, ArrayFeed):
        train.seed = derive(settings.random_seed, "client", number)
    return Client(number, train)
