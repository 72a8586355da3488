"""`experiments_manager federate`."""

from __future__ import annotations

import enum
import functools
import sys
from pathlib import Path
from typing import Annotated

import typer

from experiments_manager.cli import options
from experiments_manager.cli.commands.train import Resume
from experiments_manager.common.console import warn


class Engine(str, enum.Enum):
    """Where simulated clients are."""

    PROCESS = "process"
    RAY = "ray"


federate = typer.Typer(help="Train one model over the data of several clients.", no_args_is_help=True)


@federate.callback()
def several_commands() -> None:
    """Train one model over the data of several clients."""


@federate.command()
def simulate(
    settings: options.SettingsFile,
    clients: Annotated[int | None, typer.Option(metavar="N", help="Number of clients.")] = None,
    rounds: Annotated[int | None, typer.Option(metavar="R", help="Rounds of local training and aggregation.")] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="W", help="Clients that train at a time; results do not depend on it.")
    ] = None,
    engine: Annotated[
        Engine,
        typer.Option(help="Where clients are: in this process, or in processes of Flower's own simulation (Ray)."),
    ] = Engine.PROCESS,
    overrides: options.Overrides = [],  # noqa: B006  (typer copies it)
    working_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Make the run folder here instead of in working_dir.")
    ] = None,
    run_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Exact name of the run folder, instead of one with the time.")
    ] = None,
    resume: Annotated[
        Resume, typer.Option(help="auto: go on with the run of that --run-name, or start it if it does not exist.")
    ] = Resume.NEVER,
    serve: options.Serve = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Train a federation whose clients are all simulated.

    Ctrl-C stops it within a round, and `resume` goes on with that round.
    """
    from experiments_manager import api
    from experiments_manager.cli.training_session import run_to_its_end, start_engine

    if not quiet:
        warn(f"Training a federation of {settings}")
    output = start_engine(json=json, debug=debug)
    loaded = api.federation_settings(settings, clients=clients, rounds=rounds, overrides=overrides)
    train_it = functools.partial(
        api.simulate_federation,
        loaded,
        engine=engine.value,
        workers=workers,
        working_dir=working_dir,
        run_name=run_name,
        resume=resume.value,
        command=["experiments_manager", *sys.argv[1:]],
    )
    run_to_its_end(train_it, output, quiet=quiet, serve=loaded if serve else None)
