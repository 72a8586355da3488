"""A federation as an ordinary run; see `round_trainer`."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
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
from experiments_manager.training.engine.context import TrainingContext
from experiments_manager.training.engine.outcome import RunResult

MakeFleet = Callable[[TrainingContext, LocalTrainer], contextlib.AbstractContextManager[Fleet]]
"""Gives the clients of a run, whose `LocalTrainer` trains on the model of the run."""


def simulate(settings: Settings, *, engine: str = "process", workers: int | None = None, **options: Any) -> RunResult:
    """Train a federation whose clients are all simulated, in a run folder.

    Args:
        settings: With `federated["clients"]`; the rounds are its epochs.
        engine: `process` (threads of this one) or `ray` (Flower's own simulation).
        workers: How many clients train at a time; by default one for each processor. Results do not depend on it.
        **options: As for `runner.start_run`.

    Raises:
        FederationError: The setting `federated` is wrong, or a round failed.
    """
    check(settings)
    return runner.start_run(settings, **_simulation(engine, workers, settings), **options)


def simulate_or_resume(
    settings: Settings, run_name: str, *, engine: str = "process", workers: int | None = None, **options: Any
) -> RunResult:
    """Go on with the federation of this name, or start it where there is none; see `runner.start_or_resume`."""
    check(settings)
    return runner.start_or_resume(settings, run_name, **_simulation(engine, workers, settings), **options)


def resume(run: Run, overrides: Mapping[str, Any] = {}, *, workers: int | None = None, **options: Any) -> RunResult:
    """Go on with such a run from the last round of its newest checkpoint, with clients of its kind; see `runner`."""
    federation = run.manifest["federation"]
    if federation["kind"] == KIND:
        return runner.resume_run(run, overrides, **_deployment(Deployment.of(federation)), **options)
    engine = "ray" if federation["kind"] == "ray" else "process"
    return runner.resume_run(run, overrides, **_simulation(engine, workers), **options)


def deploy(settings: Settings, deployment: Deployment, **options: Any) -> RunResult:
    """Train a federation whose clients are on machines of their own, in a run folder.

    Args:
        settings: The rounds are its epochs.
        deployment: Where clients connect to.
        **options: As for `runner.start_run`.

    Raises:
        FederationError: The setting `federated` or the deployment is wrong, or a round failed.
    """
    check(settings)
    return runner.start_run(settings, **_deployment(deployment, settings), **options)


def deploy_or_resume(settings: Settings, run_name: str, deployment: Deployment, **options: Any) -> RunResult:
    """Go on with the federation of this name, or start it where there is none; see `runner.start_or_resume`."""
    check(settings)
    return runner.start_or_resume(settings, run_name, **_deployment(deployment, settings), **options)


def check(settings: Settings) -> None:
    """Raise what is wrong before anything is built."""
    flower()
    FederationPlan.of(settings)
    if not settings.has("federated_strategy"):
        make_strategy(settings)


def run_options(make_fleet: MakeFleet, kind: str, settings: Settings | None = None, **told: Any) -> dict[str, Any]:
    """Return what makes a run that of a federation.

    Args:
        make_fleet: Gives its clients.
        kind: Where they are, as `run.json` says it.
        settings: Those that a new run starts with, so that it is known as a federation from its first moment on.
        **told: What else is kept in `run.json`, for a resume.
    """
    started = {} if settings is None else {"federation": _federation(settings, kind, told)}
    trainer = functools.partial(_rounds, make_fleet=make_fleet, kind=kind, told=told)
    return {"in_turn": FOR_CLIENTS, "make_epoch_trainer": trainer, "fields": started}


def _federation(settings: Settings, kind: str, told: Mapping[str, Any]) -> dict[str, Any]:
    strategy = type(make_strategy(settings).strategy).__name__
    return {"kind": kind, "clients": FederationPlan.of(settings).clients, "strategy": strategy, **told}


def _simulation(engine: str, workers: int | None, settings: Settings | None = None) -> dict[str, Any]:
    if engine == "ray":
        from experiments_manager.federated.ray.fleet import ray_fleet, require_ray

        require_ray()
        if settings is not None and settings.federated.get("secure_aggregation"):
            raise FederationError(
                "federated['secure_aggregation'] cannot be used with the engine ray, whose clients keep no secrets "
                "from one message to the next. Expected the engine process, or clients on machines of their own. Leave "
                "`--engine ray` out."
            )
        return run_options(functools.partial(ray_fleet, workers=workers), "ray", settings)
    from experiments_manager.federated.simulation.simulated_fleet import simulated_fleet

    return run_options(functools.partial(simulated_fleet, workers=workers), "simulation", settings)


def _deployment(deployment: Deployment, settings: Settings | None = None) -> dict[str, Any]:
    from experiments_manager.federated.deployment.deployed_fleet import deployed_fleet

    make_fleet = functools.partial(deployed_fleet, deployment=deployment)
    return run_options(make_fleet, KIND, settings, **deployment.to_json()) | {"trains_here": False}


@contextlib.contextmanager
def _rounds(
    context: TrainingContext, make_fleet: MakeFleet, kind: str, told: Mapping[str, Any]
) -> Iterator[RoundTrainer]:
    server = LocalTrainer(context.experiment, context.loops)
    with contextlib.ExitStack() as stack:
        fleet = stack.enter_context(make_fleet(context, server))
        context.run.update(federation=_federation(context.experiment.settings, kind, told))
        watchers = round_watchers(context, server)
        context.watchers += watchers
        rounds = RoundTrainer(context, fleet, server, watchers)
        yield rounds
        rounds.end(context)
