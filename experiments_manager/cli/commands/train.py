"""`experiments_manager train`."""

from __future__ import annotations

import enum
import functools
import sys
from pathlib import Path
from typing import Annotated

import typer

from experiments_manager.cli import options
from experiments_manager.cli.federation_session import join_as_before
from experiments_manager.common.console import warn


class Resume(str, enum.Enum):
    """Whether a run of the same name is continued."""

    NEVER = "never"
    AUTO = "auto"


def train(
    settings: options.SettingsFile,
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
    """Train an experiment in a new run folder.

    Ctrl-C stops it at the next step, where `resume` goes on later.
    """
    from experiments_manager import api
    from experiments_manager.cli.training_session import run_to_its_end, start_engine

    if not quiet:
        warn(f"Training {settings}")
    output = start_engine(json=json, debug=debug)
    loaded = api.load_settings(settings, overrides)
    if loaded.enable_federated_learning:
        join_as_before(loaded, working_dir, quiet=quiet)
        return

    train_it = functools.partial(
        api.train,
        loaded,
        working_dir=working_dir,
        run_name=run_name,
        resume=resume.value,
        command=["experiments_manager", *sys.argv[1:]],
    )
    changes = overrides if resume is Resume.AUTO else ()  # a new run keeps them from its start on
    run_to_its_end(train_it, output, quiet=quiet, serve=loaded if serve else None, overrides=changes)
