"""A federation as an ordinary run; see `round_trainer`."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments_manager.common.installation import install_command
from experiments_manager.federated.checked_options import checked_options
from experiments_manager.federated.deployment.server import KIND, Deployment, deployed_fleet
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.fleet import Fleet, Simulation
from experiments_manager.federated.flower import flower
from experiments_manager.federated.local.trainer import FOR_CLIENTS, LocalTrainer
from experiments_manager.federated.watching.client_curves import ClientCurves
from experiments_manager.federated.watching.client_runs import ClientRuns
from experiments_manager.federated.watching.clients_csv import FILE as CLIENTS_FILE
from experiments_manager.federated.watching.clients_csv import ClientsCsv
from experiments_manager.federated.watching.clusters import ClusterModels, Clusters
from experiments_manager.federated.watching.round_watcher import RoundWatcher
from experiments_manager.runs import Run
from experiments_manager.settings import Settings
from experiments_manager.settings.options.federated import FederatedOptions
from experiments_manager.training.engine import runner
from experiments_manager.training.engine.context import EpochTrainer, RunOptions, TrainingContext
from experiments_manager.training.engine.outcome import RunResult

CLUSTERS = "clusters"
"""Folder of the exported models of clusters, in that of the run."""


Clients = Simulation | Deployment
"""Where the clients of a federation are."""


def for_new_run(settings: Settings, clients: Clients, options: RunOptions) -> RunOptions:
    """Return what surrounds a run as that of a federation, which `run.json` says from its first moment on.

    Args:
        settings: With `federated["clients"]`; the rounds are its epochs.
        clients: Where they are.
        options: As for any run.

    Raises:
        FederationError: The setting `federated` is wrong, which is seen before anything is built.
    """
    return _for_federation(options, clients, {"federation": _federation(settings, clients)})


def resume(
    run: Run, overrides: Mapping[str, Any] | Sequence[str], options: RunOptions, *, workers: int | None = None
) -> RunResult:
    """Go on with such a run from the last round of its newest checkpoint, with clients of its kind; see `runner`."""
    federation = run.manifest["federation"]
    if federation["kind"] == KIND:
        clients: Clients = Deployment.of(federation)
    else:
        clients = Simulation("ray" if federation["kind"] == "ray" else "process", workers)
    return runner.resume_run(run, overrides, _for_federation(options, clients))


def _fleet(
    clients: Clients, context: TrainingContext, server: LocalTrainer
) -> contextlib.AbstractContextManager[Fleet]:
    """Give the clients of a run, whose `server` trains on the model of the run."""
    if isinstance(clients, Deployment):
        return deployed_fleet(context, clients)
    if clients.engine == "ray":
        from experiments_manager.federated.simulation.ray_fleet import ray_fleet

        return ray_fleet(context, clients.workers)
    from experiments_manager.federated.simulation.simulated_fleet import simulated_fleet

    return simulated_fleet(context, server, clients.workers)


def _for_federation(options: RunOptions, clients: Clients, fields: Mapping[str, Any] = {}) -> RunOptions:
    @contextlib.contextmanager
    def rounds(context: TrainingContext) -> Iterator[EpochTrainer]:
        federation = _federation(context.experiment.settings, clients)
        from experiments_manager.federated.round_trainer import RoundTrainer

        server = LocalTrainer(context.experiment, context.loops)
        with _fleet(clients, context, server) as fleet:
            context.run.update(federation=federation)
            watchers = round_watchers(context, server)
            context.watchers += watchers
            trained = RoundTrainer(context, fleet, server, watchers)
            yield trained
            trained.end(context)

    trains_here = isinstance(clients, Simulation)
    return dataclasses.replace(
        options, in_turn=FOR_CLIENTS, trains_here=trains_here, make_epoch_trainer=rounds, fields=fields
    )


def _federation(settings: Settings, clients: Clients) -> dict[str, Any]:
    """Return what `run.json` says of a federation.

    Raises:
        FederationError: Something of it is wrong, which is seen before anything is built.
    """
    flower()
    options = checked_options(settings)
    kind, told = "simulation", {}
    if isinstance(clients, Deployment):
        kind, told = KIND, clients.to_json()
    elif clients.engine == "ray":
        kind = "ray"
        _check_ray(options)
    from experiments_manager.federated.strategies.catalogue import make_strategy

    strategy = type(make_strategy(settings, options).strategy).__name__
    return {"kind": kind, "clients": options.clients, "strategy": strategy, **told}


def _check_ray(options: FederatedOptions) -> None:
    if importlib.util.find_spec("ray") is None:
        raise FederationError(f"The package ray is not installed. Install it: {install_command('federated-ray')}")
    if options.masks:
        raise FederationError(
            "federated['secure_aggregation'] cannot be used with the engine ray, whose clients keep no secrets "
            "from one message to the next. Expected the engine process, or clients on machines of their own. Leave "
            "`--engine ray` out."
        )


def round_watchers(context: TrainingContext, server: LocalTrainer) -> list[RoundWatcher]:
    """Return who is told of the rounds of this run, as its settings choose them."""
    run, settings = context.run, context.experiment.settings
    curves = [ClientCurves(run.logs_dir, lambda text: context.dispatch("on_message", text))]
    true_groups = checked_options(settings).true_groups or None
    models = ClusterModels(context, server, run.path / CLUSTERS)
    return [
        *(curves if settings.tensorboard else []),
        ClientsCsv(run.path / CLIENTS_FILE),
        ClientRuns(run, settings, context.experiment.monitor),
        Clusters(run, models, true_groups=true_groups, figures=settings.figures),
    ]
