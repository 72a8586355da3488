"""The rounds of a federation as the epochs of an ordinary run, that of the global model.

So all that a run has, a federation has too: its folder, `metrics.csv` with a row a round, validation on the server,
averaged weights, early stopping, checkpoints, versions that are exported as the global model improves, reports, going
on after a kill.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from experiments_manager.federated.checked_options import checked_options
from experiments_manager.federated.fleet import Federation, Fleet
from experiments_manager.federated.local.trainer import LocalTrainer
from experiments_manager.federated.message_records import grouped, to_record, ungrouped
from experiments_manager.federated.server.federation_state import FederationState, RoundReport
from experiments_manager.federated.server.round_loop import run_round
from experiments_manager.federated.strategies.catalogue import make_strategy
from experiments_manager.federated.strategies.reply_checks import ProcIds
from experiments_manager.federated.watching.round_watcher import RoundWatcher, round_values
from experiments_manager.training.engine.context import Interrupted, TrainingContext, tell_or_disable
from experiments_manager.training.engine.step_hooks import checkpoint
from experiments_manager.training.setup.compilation import has_schedule


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
        self._options = checked_options(self._settings)
        self._first_rate = context.experiment.state.learning_rate
        self._steps, self._has_begun = 0, False
        self._state: FederationState | None = None
        self._values: dict[str, float] = {}
        self._proc_ids = ProcIds(fleet.grid)  # one for all rounds: it learns who is where

    def train_epoch(self, context: TrainingContext) -> dict[str, float]:
        """Run the next round; its weights are in the model afterwards.

        Raises:
            Interrupted: It was asked to stop; the round is begun anew when the run goes on.
            FederationError: The round failed.
        """
        if context.should_stop():
            raise Interrupted
        if self._state is not None and self._state.round > context.experiment.state.progress.epoch:
            return dict(self._values)
        if self._fleet.keeps_state:
            checkpoint(context)
            context.checkpoints.wait()
        state, averages = self._state or FederationState(0, self._server.weights()), _held_averages(context)
        rate = context.experiment.state.learning_rate
        context.callbacks.list.on_epoch_begin(context.experiment.state.progress.epoch)
        self._begin_watching(state.round + 1)
        federation = self._federation(context)
        ran = run_round(federation, state)
        if ran is None:
            self._put_in_place(context, state, averages, rate)
            raise Interrupted
        after, report = ran
        for entry in report.left_out:
            context.dispatch("on_message", f"Round {report.round}: {entry.name} was left out. {entry.reason}")
        self._dispatch("on_round", report, federation.strategy)
        self._values = round_values(report, federation.strategy, self._options.true_groups or None)
        self._state = after
        self._take_over(context, after, averages, rate, _mean_steps(report))
        return dict(self._values)

    def inexact_reasons(self) -> Sequence[str]:
        """Return why a resume would not be exact, as far as it lies at the clients."""
        return self._fleet.inexact_reasons

    def end(self, context: TrainingContext) -> None:
        """Tell the watchers that the last round is over, unless the run was stopped and is to go on."""
        progress = context.experiment.state.progress
        is_over = progress.epoch >= self._settings.epochs or progress.stop_reason is not None
        if self._state is None or not is_over:
            return
        self._begin_watching(self._state.round + 1)  # where the run was killed after its last round
        strategy = make_strategy(self._settings, self._options, self._server.not_trained)
        strategy.restore(dict(self._state.strategy), self._state.strategy_arrays, to_record(self._state.arrays))
        self._dispatch("on_last", self._state.round, strategy)

    def state(self) -> tuple[dict[str, Any], dict[str, tf.Tensor]]:
        """Return the strategy's memory, and what clients keep from one round to the next."""
        if self._state is None:
            return {"round": 0}, {}
        tensors = ungrouped(
            {
                "global": self._state.arrays,
                "strategy": self._state.strategy_arrays,
                "clients": self._state.client_arrays,
            }
        )
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
        if not plain["round"]:
            self._state, self._steps = None, 0
            return
        groups = grouped({name: np.asarray(value) for name, value in tensors.items()})
        arrays = {name: groups["global"][name] for name in plain["order"]}
        self._steps, self._values = plain.get("steps", 0), dict(plain.get("values", {}))
        self._state = FederationState(
            plain["round"], arrays, plain["strategy"], groups.get("strategy", {}), groups.get("clients", {})
        )

    def _begin_watching(self, round: int) -> None:  # noqa: A002
        if not self._has_begun:
            self._has_begun = True
            self._dispatch("on_begin", round)

    def _federation(self, context: TrainingContext) -> Federation:
        """Return what the next round works with; its strategy is new."""
        config: dict[str, Any] = {"local-epochs": self._options.local_epochs, "steps-before": self._steps}
        if not has_schedule(context.experiment.model.optimizer):
            config["rate-scale"] = context.experiment.state.learning_rate / self._first_rate
        return Federation(
            self._fleet,
            make_strategy(self._settings, self._options, self._server.not_trained),
            self._proc_ids,
            self._options,
            seed=self._settings.random_seed,
            train_config=config,
            on_message=lambda text: context.dispatch("on_message", text),
            should_stop=context.should_stop,
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

    def _dispatch(self, event: str, *content: Any) -> None:
        """Tell every watcher; one that fails is told of no further round, and the federation goes on."""
        for watcher in list(self._watchers):
            tell_or_disable(self._watchers, watcher, event, *content)


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
