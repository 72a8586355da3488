"""A federation as an ordinary run; see `rounds_of_run`."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from experiments_manager.federated.fleet import Fleet
from experiments_manager.federated.flower import flower
from experiments_manager.federated.plan import FederationPlan
from experiments_manager.federated.rounds_of_run import FederatedRounds, make_strategy
from experiments_manager.federated.watching.watchers import round_watchers
from experiments_manager.runs import Run
from experiments_manager.settings import Settings
from experiments_manager.training.engine import runner
from experiments_manager.training.engine.context import TrainingContext
from experiments_manager.training.engine.outcome import RunResult
from experiments_manager.training.local.trainer import LocalTrainer

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
    return runner.start_run(settings, **run_options(_simulation(engine, workers)), **options)


def simulate_or_resume(
    settings: Settings, run_name: str, *, engine: str = "process", workers: int | None = None, **options: Any
) -> RunResult:
    """Go on with the federation of this name, or start it where there is none; see `runner.start_or_resume`."""
    check(settings)
    return runner.start_or_resume(settings, run_name, **run_options(_simulation(engine, workers)), **options)


def resume(run: Run, overrides: Mapping[str, Any] = {}, *, workers: int | None = None, **options: Any) -> RunResult:
    """Go on with such a run from the last round of its newest checkpoint, with its engine; see `runner.resume_run`."""
    engine = "ray" if run.manifest["federation"]["kind"] == "ray" else "process"
    return runner.resume_run(run, overrides, **run_options(_simulation(engine, workers)), **options)


def check(settings: Settings) -> None:
    """Raise what is wrong before anything is built."""
    flower()
    FederationPlan.of(settings)
    if not settings.has("federated_strategy"):
        make_strategy(settings)


def run_options(make_fleet: MakeFleet) -> dict[str, Any]:
    """Return what makes a run that of a federation."""
    return {"for_clients": True, "make_epoch_trainer": functools.partial(_rounds, make_fleet=make_fleet)}


def _simulation(engine: str, workers: int | None) -> MakeFleet:
    if engine == "ray":
        from experiments_manager.federated.ray.fleet import ray_fleet, require_ray

        require_ray()
        return functools.partial(ray_fleet, workers=workers)
    from experiments_manager.federated.simulation.simulated_fleet import simulated_fleet

    return functools.partial(simulated_fleet, workers=workers)


@contextlib.contextmanager
def _rounds(context: TrainingContext, make_fleet: MakeFleet) -> Iterator[FederatedRounds]:
    server = LocalTrainer(context.experiment, context.loops)
    with contextlib.ExitStack() as stack:
        fleet = stack.enter_context(make_fleet(context, server))
        plan = FederationPlan.of(context.experiment.settings)
        strategy = type(make_strategy(context.experiment.settings).strategy).__name__
        context.run.update(federation={"kind": fleet.kind, "clients": plan.clients, "strategy": strategy})
        watchers = round_watchers(context, server)
        context.watchers += watchers
        rounds = FederatedRounds(context, fleet, server, watchers)
        yield rounds
        rounds.end(context)
