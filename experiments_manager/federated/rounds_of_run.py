"""The rounds of a federation as the epochs of an ordinary run, that of the global model.

So all that a run has, a federation has too: its folder, `metrics.csv` with a row a round, validation on the server,
averaged weights, early stopping, checkpoints, versions that are exported as the global model improves, reports, going
on after a kill.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from experiments_manager.federated.fleet import Fleet
from experiments_manager.federated.plan import FederationPlan
from experiments_manager.federated.server.federation_metrics import CLIENTS_PREFIX
from experiments_manager.federated.watching.round_watcher import RoundWatcher
from experiments_manager.settings import Settings
from experiments_manager.training.engine.context import Interrupted, TrainingContext
from experiments_manager.training.engine.step_hooks import checkpoint
from experiments_manager.training.local.trainer import LocalTrainer
from experiments_manager.training.setup.compilation import has_schedule

if TYPE_CHECKING:
    from experiments_manager.federated.server.federation_state import FederationState, RoundReport
    from experiments_manager.federated.server.rounds.plan import RoundHooks, RoundPlan
    from experiments_manager.federated.strategies.server_strategy import ServerStrategy

NOT_OF_ROUNDS = ("num-examples", "num-steps")
"""What clients tell with their metrics that is no metric."""


class FederatedRounds:
    """Trains the rounds of a run; an `EpochTrainer`.

    Args:
        context: The run of the global model.
        fleet: The clients.
        server: Its `LocalTrainer`, which knows the variables of the global model.
        watchers: Who is told of each round.
    """

    def __init__(
        self, context: TrainingContext, fleet: Fleet, server: LocalTrainer, watchers: Sequence[RoundWatcher] = ()
    ) -> None:
        self._settings, self._fleet, self._server = context.experiment.settings, fleet, server
        self._watchers = list(watchers)
        self._plan = FederationPlan.of(self._settings)
        self._first_rate = context.experiment.state.learning_rate
        self._steps, self._began = 0, False
        self._state: FederationState | None = None

    def train_epoch(self, context: TrainingContext) -> dict[str, float]:
        """Run the next round; its weights are in the model afterwards.

        Raises:
            Interrupted: It was asked to stop; the round is begun anew when the run goes on.
            FederationError: The round failed.
        """
        from experiments_manager.federated.server.rounds.loop import run_rounds

        if context.should_stop():
            raise Interrupted
        if self._fleet.keeps_state:
            checkpoint(context)
            context.checkpoints.wait()
        state, averages = self._state or self._beginning(), _held_averages(context)
        rate = context.experiment.state.learning_rate
        context.callbacks.list.on_epoch_begin(context.experiment.state.progress.epoch)
        self._begin(state.round + 1)
        strategy, reports = make_strategy(self._settings), []
        hooks = self._hooks(context, reports)
        after = run_rounds(self._fleet.grid, strategy, state, self._round_plan(context, state), hooks)
        if after.round == state.round:
            self._put_in_place(context, state, averages, rate)
            raise Interrupted
        (report,) = reports
        self._state = after
        self._take_over(context, after, averages, rate, _mean_steps(report))
        self._tell(context, report, strategy)
        return _metrics(report.train) | _metrics(report.clients, CLIENTS_PREFIX)

    def inexact_reasons(self) -> Sequence[str]:
        """Return why a resume would not be exact, as far as it lies at the clients."""
        return getattr(self._fleet, "inexact_reasons", ())

    def state(self) -> tuple[dict[str, Any], dict[str, tf.Tensor]]:
        """Return the strategy's memory, and what clients keep from one round to the next."""
        if self._state is None:
            return {"round": 0}, {}
        groups = {
            "global": self._state.arrays,
            "strategy": self._state.strategy_arrays,
            "clients": self._state.extra_arrays,
        }
        tensors = {f"{group}/{name}": value for group, held in groups.items() for name, value in held.items()}
        plain = {
            "round": self._state.round,
            "steps": self._steps,
            "strategy": dict(self._state.strategy),
            "order": list(self._state.arrays),
        }
        return plain, {name: tf.constant(value) for name, value in tensors.items()}

    def restore(self, plain: Mapping[str, Any], tensors: Mapping[str, tf.Tensor]) -> None:
        """Go back to what `state` returned."""
        from experiments_manager.federated.server.federation_state import FederationState

        if not plain["round"]:
            self._state, self._steps = None, 0
            return
        groups: dict[str, dict[str, np.ndarray]] = {"global": {}, "strategy": {}, "clients": {}}
        for name, value in tensors.items():
            group, _, rest = name.partition("/")
            groups[group][rest] = np.asarray(value)
        arrays = {name: groups["global"][name] for name in plain["order"]}
        self._steps = plain.get("steps", 0)
        self._state = FederationState(
            plain["round"], arrays, plain["strategy"], groups["strategy"], extra_arrays=groups["clients"]
        )

    def _begin(self, round: int) -> None:  # noqa: A002
        self._fleet.before_round(round)
        if not self._began:
            self._began = True
            for watcher in self._watchers:
                watcher.on_begin(round)

    def _beginning(self) -> FederationState:
        from experiments_manager.federated.server.federation_state import FederationState

        return FederationState(0, self._server.weights())

    def _hooks(self, context: TrainingContext, reports: list[RoundReport]) -> RoundHooks:
        from experiments_manager.federated.server.rounds.plan import RoundHooks

        def note(report: RoundReport, after: FederationState) -> None:
            reports.append(report)
            self._fleet.after_round(report)

        return RoundHooks(
            on_round=note,
            on_message=lambda text: context.dispatch("on_message", text),
            should_stop=context.should_stop,
            restore=lambda state: self._fleet.restore(state.extra_arrays),
            extra_arrays=self._fleet.state,
        )

    def _round_plan(self, context: TrainingContext, state: FederationState) -> RoundPlan:
        from experiments_manager.federated.server.rounds.plan import RoundPlan

        config: dict[str, Any] = {"local-epochs": self._plan.local_epochs, "steps-before": self._steps}
        if not has_schedule(context.experiment.model.optimizer):
            config["rate-scale"] = context.experiment.state.learning_rate / self._first_rate
        return RoundPlan(
            rounds=state.round + 1,
            seed=self._settings.random_seed,
            min_clients=self._plan.strategy["min_clients"],
            round_timeout=self._plan.round_timeout,
            train_config=config,
        )

    def _take_over(
        self, context: TrainingContext, state: FederationState, averages: list[np.ndarray], rate: float, steps: int
    ) -> None:
        """Put the global weights into the model, let the averages follow, and count the round as a step."""
        experiment, progress = context.experiment, context.experiment.state.progress
        first, self._steps = self._steps, self._steps + steps
        self._put_in_place(context, state, averages, rate)
        if experiment.state.averages is not None:
            experiment.state.averages.follow(first, steps)
        progress.global_step, progress.step = state.round, 1
        experiment.state.step.assign(state.round)

    def _put_in_place(
        self, context: TrainingContext, state: FederationState, averages: list[np.ndarray], rate: float
    ) -> None:
        """Let the model, on which clients may have trained, be that of a state."""
        experiment = context.experiment
        self._server.put_back(state.arrays, state.round, self._steps)
        if not has_schedule(experiment.model.optimizer):
            experiment.model.optimizer.learning_rate = rate
        if experiment.state.averages is not None:
            experiment.state.averages.assign(averages)

    def _tell(self, context: TrainingContext, report: RoundReport, strategy: ServerStrategy) -> None:
        for entry in report.left_out:
            who = f"client {entry.proc_id}" if entry.proc_id is not None else f"the client at node {entry.node_id}"
            context.dispatch("on_message", f"Round {report.round}: {who} was left out. {entry.reason}")
        for watcher in self._watchers:
            watcher.on_round(report, strategy)


def make_strategy(settings: Settings) -> ServerStrategy:
    """Return the strategy of the settings, new: what it remembers is put into it.

    Raises:
        FederationError: The setting `federated` is wrong, or the hook returned something else.
    """
    from experiments_manager.federated.strategies.catalogue import checked_strategy, server_strategy

    if settings.has("federated_strategy"):
        return checked_strategy(settings.call("federated_strategy"))
    return server_strategy(FederationPlan.of(settings).strategy)


def _metrics(values: Mapping[str, float], prefix: str = "") -> dict[str, float]:
    return {f"{prefix}{name}": value for name, value in values.items() if name not in NOT_OF_ROUNDS}


def _held_averages(context: TrainingContext) -> list[np.ndarray]:
    """Return the averaged weights, which clients that train on the same model overwrite."""
    averages = context.experiment.state.averages
    return [average.numpy() for average in averages.averages] if averages else []


def _mean_steps(report: RoundReport) -> int:
    """Return how many steps the clients of a round took, weighted by their samples as their weights are."""
    told = [values for values in report.train_by_client.values() if "num-steps" in values]
    samples = sum(values["num-examples"] for values in told)
    if not samples:
        return 0
    return round(sum(values["num-steps"] * values["num-examples"] for values in told) / samples)
