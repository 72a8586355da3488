"""All who are told of the rounds of a run."""

from __future__ import annotations

from experiments_manager.federated.local.trainer import LocalTrainer
from experiments_manager.federated.plan import FederationPlan
from experiments_manager.federated.watching.client_curves import ClientCurves
from experiments_manager.federated.watching.client_runs import ClientRuns
from experiments_manager.federated.watching.clients_csv import FILE, ClientsCsv
from experiments_manager.federated.watching.cluster_models import ClusterModels
from experiments_manager.federated.watching.clusters import Clusters
from experiments_manager.federated.watching.round_watcher import RoundWatcher
from experiments_manager.training.engine.context import TrainingContext

CLUSTERS = "clusters"
"""Folder of the exported models of clusters, in that of the run."""


def round_watchers(context: TrainingContext, server: LocalTrainer) -> list[RoundWatcher]:
    """Return who is told of the rounds of this run, as its settings choose them.

    Args:
        context: The run of the global model.
        server: Gives weights to its model.
    """
    run, experiment = context.run, context.experiment
    settings, plan = experiment.settings, FederationPlan.of(experiment.settings)
    models = ClusterModels(context, server, run.path / CLUSTERS)
    curves = [ClientCurves(run.logs_dir, lambda text: context.dispatch("on_message", text))]
    return [
        *(curves if settings.tensorboard else []),
        ClientsCsv(run.path / FILE),
        ClientRuns(run, settings, experiment.monitor),
        Clusters(run, models, true_groups=plan.true_groups, figures=settings.figures),
    ]
