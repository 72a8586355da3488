"""All who are told of the rounds of a run."""

from __future__ import annotations

from experiments_manager.federated.watching.client_runs import ClientRuns
from experiments_manager.federated.watching.clients_csv import FILE, ClientsCsv
from experiments_manager.federated.watching.round_watcher import RoundWatcher
from experiments_manager.training.engine.context import TrainingContext
from experiments_manager.training.local.trainer import LocalTrainer


def round_watchers(context: TrainingContext, server: LocalTrainer) -> list[RoundWatcher]:
    """Return who is told of the rounds of this run, as its settings choose them.

    Args:
        context: The run of the global model.
        server: Gives weights to its model.
    """
    experiment = context.experiment
    return [
        ClientsCsv(context.run.path / FILE),
        ClientRuns(context.run, experiment.settings, experiment.monitor),
    ]
