"""The rounds of a federation as the epochs of an ordinary run, that of the global model.

So all that a run has, a federation has too: its folder, `metrics.csv` with a row a round, validation on the server,
averaged weights, early stopping, checkpoints, versions that are exported as the global model improves, reports, going
on after a kill.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.fleet import Fleet
from experiments_manager.federated.local.trainer import LocalTrainer
from experiments_manager.federated.plan import FederationPlan
from experiments_manager.federated.watching.round_values import round_values
from experiments_manager.federated.watching.round_watcher import RoundWatcher
from experiments_manager.settings import Settings
from experiments_manager.training.engine.context import Interrupted, TrainingContext, tell_or_disable
from experiments_manager.training.engine.step_hooks import checkpoint
from experiments_manager.training.setup.compilation import has_schedule

if TYPE_CHECKING:
    from experiments_manager.federated.server.federation_state import FederationState, RoundReport
    from experiments_manager.federated.server.rounds.plan import RoundHooks, RoundPlan
    from experiments_manager.federated.server.rounds.proc_ids import ProcIds
    from experiments_manager.federated.strategies.server_strategy import ServerStrategy


class RoundTrainer:
    """Trains the rounds of a run; an `EpochTrainer`.

    A round that is over stays so: where the run is stopped in the validation that follows it, the round is in the
    checkpoint, with what came of it, and the run goes on with that validation.

    Args:
        context: The run of the global model.
        fleet: The clients.
        server: Its `LocalTrainer`, which knows the variables of the global model.
        watchers: Who is told of each round.
    """

    unit = "round"

    def __init__(
        self, context: TrainingContext, fleet: Fleet, server: LocalTrainer, watchers: Sequence[RoundWatcher] = ()
    ) -> None:
        self._settings, self._fleet, self._server = context.experiment.settings, fleet, server
        self._watchers = list(watchers)
        self._plan = FederationPlan.of(self._settings)
        self._first_rate = context.experiment.state.learning_rate
        self._steps, self._began = 0, False
        self._state: FederationState | None = None
        self._values: dict[str, float] = {}
        self._proc_ids: ProcIds | None = None

    def train_epoch(self, context: TrainingContext) -> dict[str, float]:
        """Run the next round; its weights are in the model afterwards.

        Raises:
            Interrupted: It was asked to stop; the round is begun anew when the run goes on.
            FederationError: The round failed.
        """
        from experiments_manager.federated.server.rounds.loop import run_rounds
        from experiments_manager.federated.server.rounds.proc_ids import ProcIds

        if context.should_stop():
            raise Interrupted
        if self._state is not None and self._state.round > context.experiment.state.progress.epoch:
            return dict(self._values)
        if self._fleet.keeps_state:
            checkpoint(context)
            context.checkpoints.wait()
        state, averages = self._state or self._beginning(), _held_averages(context)
        rate = context.experiment.state.learning_rate
        context.callbacks.list.on_epoch_begin(context.experiment.state.progress.epoch)
        self._begin(state.round + 1)
        strategy, reports = make_strategy(self._settings, self._server.not_trained), []
        hooks = self._hooks(context, reports)
        self._proc_ids = self._proc_ids or ProcIds(self._fleet.grid)  # one for all rounds: it learns who is where
        plan = self._round_plan(context, state)
        after = run_rounds(self._fleet.grid, strategy, state, plan, hooks, self._proc_ids)
        if after.round == state.round:
            self._put_in_place(context, state, averages, rate)
            raise Interrupted
        (report,) = reports
        self._tell(context, report, strategy)
        self._values = round_values(report, strategy, self._plan.true_groups)
        self._state = after
        self._take_over(context, after, averages, rate, _mean_steps(report))
        return dict(self._values)

    def inexact_reasons(self) -> Sequence[str]:
        """Return why a resume would not be exact, as far as it lies at the clients."""
        return getattr(self._fleet, "inexact_reasons", ())

    def end(self, context: TrainingContext) -> None:
        """Tell the watchers that the last round is over, unless the run was stopped and is to go on."""
        progress = context.experiment.state.progress
        is_over = progress.epoch >= self._settings.epochs or progress.stop_reason is not None
        if self._state is None or not is_over:
            return
        from experiments_manager.federated.array_records import to_record

        self._begin_watching(self._state.round + 1)  # where the run was killed after its last round
        strategy = make_strategy(self._settings, self._server.not_trained)
        strategy.restore(dict(self._state.strategy), self._state.strategy_arrays, to_record(self._state.arrays))
        self._dispatch("on_last", self._state.round, strategy)

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
            "values": self._values,
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
        self._steps, self._values = plain.get("steps", 0), dict(plain.get("values", {}))
        self._state = FederationState(
            plain["round"], arrays, plain["strategy"], groups["strategy"], extra_arrays=groups["clients"]
        )

    def _begin(self, round: int) -> None:  # noqa: A002
        self._fleet.before_round(round)
        self._begin_watching(round)

    def _begin_watching(self, round: int) -> None:  # noqa: A002
        if not self._began:
            self._began = True
            self._dispatch("on_begin", round)

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
        from experiments_manager.settings.options.secure_aggregation import SecureAggregation

        told = dict(self._fleet.config)
        config: dict[str, Any] = told | {"local-epochs": self._plan.local_epochs, "steps-before": self._steps}
        if not has_schedule(context.experiment.model.optimizer):
            config["rate-scale"] = context.experiment.state.learning_rate / self._first_rate
        return RoundPlan(
            rounds=state.round + 1,
            seed=self._settings.random_seed,
            min_clients=self._plan.strategy["min_clients"],
            round_timeout=self._plan.round_timeout,
            max_examples=self._plan.max_examples,
            secure=SecureAggregation.of(self._settings.federated),
            train_config=config,
            evaluate_config=told,
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
        self._dispatch("on_round", report, strategy)

    def _dispatch(self, event: str, *content: Any) -> None:
        """Tell every watcher; one that fails is told of no further round, and the federation goes on."""
        for watcher in list(self._watchers):
            tell_or_disable(self._watchers, watcher, event, *content)


def make_strategy(settings: Settings, averaged: Collection[str] = ()) -> ServerStrategy:
    """Return the strategy of the settings, new: what it remembers is put into it.

    Args:
        settings: With the setting `federated`, or the hook `federated_strategy`.
        averaged: Names of the variables that are not trained.

    Raises:
        FederationError: The setting `federated` is wrong, or the hook returned something else.
    """
    from experiments_manager.federated.strategies.catalogue import checked_strategy, server_strategy

    if settings.has("federated_strategy"):
        if settings.federated.get("secure_aggregation"):
            raise FederationError(
                "federated['secure_aggregation'] cannot be used with the hook `federated_strategy`, whose strategy may "
                "look at the replies of single clients. Expected one of them. Name a strategy in federated['strategy']."
            )
        return checked_strategy(settings.call("federated_strategy"), averaged)
    return server_strategy(FederationPlan.of(settings).strategy, averaged)


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
