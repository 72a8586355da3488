"""A federation as an ordinary run; see `round_trainer`."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments_manager.federated.deployment.deployment import KIND, Deployment
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.fleet import Fleet
from experiments_manager.federated.flower import flower
from experiments_manager.federated.local.trainer import FOR_CLIENTS, LocalTrainer
from experiments_manager.federated.plan import FederationPlan
from experiments_manager.federated.round_trainer import RoundTrainer, make_strategy
from experiments_manager.federated.watching.watchers import round_watchers
from experiments_manager.runs import Run
from experiments_manager.settings import Settings
from experiments_manager.training.engine import runner
from experiments_manager.training.engine.context import RunOptions, TrainingContext
from experiments_manager.training.engine.outcome import RunResult


@dataclasses.dataclass(frozen=True)
class Simulation:
    """Clients that are simulated.

    Attributes:
        engine: `process` (threads of this one) or `ray` (Flower's own simulation).
        workers: How many clients train at a time; by default one for each processor. Results do not depend on it.
    """

    engine: str = "process"
    workers: int | None = None


Clients = Simulation | Deployment
"""Where the clients of a federation are."""


def train(
    settings: Settings,
    clients: Clients,
    options: RunOptions,
    *,
    working_dir: Path | str | None = None,
    run_name: str | None = None,
    command: Sequence[str] = (),
    go_on: bool = False,
) -> RunResult:
    """Train a federation in a run folder.

    Args:
        settings: With `federated["clients"]`; the rounds are its epochs.
        clients: Where they are.
        options: As for `runner.start_run`.
        working_dir: As for `runner.start_run`.
        run_name: As for `runner.start_run`.
        command: As for `runner.start_run`.
        go_on: Whether to go on with the federation of this name, where there is one.

    Raises:
        FederationError: The setting `federated` is wrong, or a round failed.
    """
    check(settings)
    _check_engine(clients, settings)
    options = _for_federation(options, clients, {"federation": _federation(settings, clients)})
    if go_on:
        return runner.start_or_resume(settings, run_name, options, working_dir=working_dir, command=command)
    return runner.start_run(settings, options, working_dir=working_dir, run_name=run_name, command=command)


def resume(
    run: Run, overrides: Mapping[str, Any] | Sequence[str], options: RunOptions, *, workers: int | None = None
) -> RunResult:
    """Go on with such a run from the last round of its newest checkpoint, with clients of its kind; see `runner`."""
    federation = run.manifest["federation"]
    if federation["kind"] == KIND:
        clients: Clients = Deployment.of(federation)
    else:
        clients = Simulation("ray" if federation["kind"] == "ray" else "process", workers)
    _check_engine(clients)
    return runner.resume_run(run, overrides, _for_federation(options, clients))


def check(settings: Settings) -> None:
    """Raise what is wrong before anything is built."""
    flower()
    FederationPlan.of(settings)
    if not settings.has("federated_strategy"):
        make_strategy(settings)


def _fleet(
    clients: Clients, context: TrainingContext, server: LocalTrainer
) -> contextlib.AbstractContextManager[Fleet]:
    """Give the clients of a run, whose `server` trains on the model of the run."""
    if isinstance(clients, Deployment):
        from experiments_manager.federated.deployment.deployed_fleet import deployed_fleet

        return deployed_fleet(context, server, clients)
    if clients.engine == "ray":
        from experiments_manager.federated.ray.fleet import ray_fleet

        return ray_fleet(context, server, clients.workers)
    from experiments_manager.federated.simulation.simulated_fleet import simulated_fleet

    return simulated_fleet(context, server, clients.workers)


def _check_engine(clients: Clients, settings: Settings | None = None) -> None:
    if not isinstance(clients, Simulation) or clients.engine != "ray":
        return
    from experiments_manager.federated.ray.fleet import require_ray

    require_ray()
    if settings is not None and settings.federated.get("secure_aggregation"):
        raise FederationError(
            "federated['secure_aggregation'] cannot be used with the engine ray, whose clients keep no secrets "
            "from one message to the next. Expected the engine process, or clients on machines of their own. Leave "
            "`--engine ray` out."
        )


def _for_federation(options: RunOptions, clients: Clients, fields: Mapping[str, Any] = {}) -> RunOptions:
    """Return what surrounds a run as that of a federation; `fields` make it known as one from its first moment on."""

    @contextlib.contextmanager
    def rounds(context: TrainingContext) -> Iterator[RoundTrainer]:
        server = LocalTrainer(context.experiment, context.loops)
        with _fleet(clients, context, server) as fleet:
            context.run.update(federation=_federation(context.experiment.settings, clients))
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
    strategy = type(make_strategy(settings).strategy).__name__
    if isinstance(clients, Deployment):
        kind, told = KIND, clients.to_json()
    else:
        kind, told = "ray" if clients.engine == "ray" else "simulation", {}
    return {"kind": kind, "clients": FederationPlan.of(settings).clients, "strategy": strategy, **told}
