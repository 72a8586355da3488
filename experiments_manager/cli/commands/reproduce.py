"""`experiments_manager reproduce`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments_manager.cli import options
from experiments_manager.common.console import warn
from experiments_manager.common.exit_codes import ExitCode

if TYPE_CHECKING:
    from experiments_manager.runs import Run
    from experiments_manager.runs.reproduction.outcome import Outcome


def reproduce(
    run: options.RunFolder,
    working_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the new run is made, by default beside RUN.")
    ] = None,
    environment: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Virtual environment to make and keep, or to use again.")
    ] = None,
    keep_environment: Annotated[
        bool,
        typer.Option("--keep-environment", help="Keep the environment in the user's cache, for another time."),
    ] = False,
    wheels: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Install from the wheels in this folder, without a network.")
    ] = None,
    here: Annotated[bool, typer.Option("--here", help="Use the packages that are installed here.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a run again with its packages, and compare the results.

    It is trained from the code, settings and seed in its folder, in a virtual environment with the packages in its
    run.json. The exit code is 0 only if the result is the same.
    """
    from experiments_manager.runs import open_run
    from experiments_manager.runs.reproduction.environment import environment_of
    from experiments_manager.runs.reproduction.reproduce import command_line, train_again

    tell = (lambda text: None) if quiet else warn
    first = open_run(run)
    parent = (working_dir or first.path.parent).expanduser().absolute()
    name = _free_name(parent, f"{first.name}-again")
    command_line(first, Path(sys.executable), parent, name)  # refuses before anything is installed
    if here:
        _tell_differences(first, tell)
        python = Path(sys.executable)
        again, outcome = train_again(first, python, parent, name, tell)
    else:
        with environment_of(first.manifest, environment, wheels, keep=keep_environment, tell=tell) as python:
            again, outcome = train_again(first, python, parent, name, tell)
    if json:
        from experiments_manager.cli.results import as_line

        typer.echo(as_line({"run_dir": str(again.path), **outcome.to_json()}), nl=False)
    else:
        _print(again, outcome)
    if not outcome.same:
        raise typer.Exit(ExitCode.USER_CODE_FAILED)


def _tell_differences(first: Run, tell: Callable[[str], None]) -> None:
    from experiments_manager.runs.provenance import installed_packages
    from experiments_manager.runs.reproduction.environment import differing_packages

    others = differing_packages(first.manifest, installed_packages())
    if others:
        shown = ", ".join(f"{name} {was} (here {now or 'none'})" for name, (was, now) in list(others.items())[:5])
        tell(f"{len(others)} packages differ from those of the run: {shown}{', …' if len(others) > 5 else ''}")


def _free_name(parent: Path, name: str) -> str:
    from experiments_manager.runs.naming import numbered

    return next(other for other in numbered(name) if not (parent / other).exists())


def _print(again: Run, outcome: Outcome) -> None:
    typer.echo(f"{'The same' if outcome.same else 'Not the same'}: {again.path}")
    typer.echo(f"Weights of the last checkpoint: {outcome.weights}")
    if outcome.epochs[0] != outcome.epochs[1]:
        typer.echo(f"Epochs: {outcome.epochs[0]}, now {outcome.epochs[1]}")
    for name, (then, now, distance) in outcome.metrics.items():
        apart = "" if distance is None else f", {distance:.3g} apart"
        typer.echo(f"{name}: {then}, now {now}{apart}")
    if not outcome.metrics:
        typer.echo("Metrics: identical")
