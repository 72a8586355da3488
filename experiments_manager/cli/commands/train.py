"""`experiments_manager train`."""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments_manager.cli import options
from experiments_manager.common.console import warn

if TYPE_CHECKING:
    from experiments_manager.runs import Run
    from experiments_manager.training.engine.outcome import RunResult


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
        Resume, typer.Option(help="auto: go on with the run of that --run-name, or start it where there is none.")
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

    def action(announce: Callable[[Run], None]) -> RunResult:
        return api.train(
            loaded,
            working_dir=working_dir,
            run_name=run_name,
            resume=resume.value,
            quiet=quiet,
            command=["experiments_manager", *sys.argv[1:]],
            on_run=announce,
        )

    changes = overrides if resume is Resume.AUTO else ()  # a new run keeps them from its start on
    run_to_its_end(action, output, quiet=quiet, serve=loaded if serve else None, overrides=changes)
