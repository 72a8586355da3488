"""`experiments_manager sweep`."""

from __future__ import annotations

import dataclasses
import enum
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from experiments_manager.cli import options
from experiments_manager.common.console import warn
from experiments_manager.common.errors import CommandLineError
from experiments_manager.common.exit_codes import ExitCode

if TYPE_CHECKING:
    import click

_DEFAULT = "run"


class _RunByDefault(typer.core.TyperGroup):
    """A group whose command `run` may be left out: `sweep FILE` is `sweep run FILE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


class Executor(str, enum.Enum):
    """Whether trials are processes of this machine or jobs of a cluster."""

    LOCAL = "local"
    SLURM = "slurm"


sweep = typer.Typer(
    help="Search the settings that work best: `sweep SWEEP_FILE`.", no_args_is_help=True, cls=_RunByDefault
)


@sweep.callback()
def several_commands() -> None:
    """Search the settings that work best.

    `experiments_manager sweep SWEEP_FILE [OPTIONS]` runs a sweep, as `sweep run` does.
    """


@sweep.command(_DEFAULT)
def run(
    sweep_file: Annotated[Path, typer.Argument(metavar="SWEEP_FILE", help="The sweep file, a Python file.")],
    trials: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Trials at most, instead of max_trials.")
    ] = None,
    parallel: Annotated[
        int | None, typer.Option(metavar="P", min=1, help="Trials at a time, instead of parallel.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the sweep of that name, or begin it where there is none.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run failed trials again; implies --resume.")
    ] = False,
    working_dir: Annotated[
        Path, typer.Option(metavar="DIR", help="Make the sweep's folder here.", show_default=True)
    ] = Path("sweeps"),
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the sweep's folder, instead of that of the file.")
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the best trial so far, at the settings' grpc_port and rest_port.")
    ] = False,
    executor: Annotated[
        Executor, typer.Option(help="slurm: each trial is a job, at most P of them in the queue.")
    ] = Executor.LOCAL,
    cluster: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=VALUE",
            help="What each job asks for, e.g. partition=gpu or time=2:00:00; the names are those of submit's options. "
            "May be given several times.",
        ),
    ] = [],  # noqa: B006  (typer copies it)
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Run a sweep: trials in processes of their own, each an ordinary run.

    Ctrl-C lets the trials that run write a checkpoint, where --resume goes on later; so it does after a kill. With
    --executor slurm they are jobs of a cluster, which go on while there is no driver.
    """
    from experiments_manager.cli.results import ResultLine
    from experiments_manager.cluster.job_options import options_of_texts
    from experiments_manager.sweeps.verb import sweep as run_sweep

    if cluster and executor is not Executor.SLURM:
        raise CommandLineError("--cluster describes jobs of a cluster. Expected --executor slurm beside it. Add it.")
    output = ResultLine() if json else None
    result = run_sweep(
        sweep_file,
        trials=trials,
        parallel=parallel,
        resume=resume or retry_failed,
        retry_failed=retry_failed,
        working_dir=working_dir,
        name=name,
        serve=serve,
        quiet=quiet,
        executor=executor.value,
        cluster=options_of_texts(cluster),
        command=["experiments_manager", *sys.argv[1:]],
    )
    if output:
        output.write(dataclasses.asdict(result))
    elif not quiet:
        _print(result)
    if result.state == "interrupted":
        further = [] if name is None else ["--name", name]
        further += [] if working_dir == Path("sweeps") else ["--working-dir", str(working_dir)]
        further += [] if executor is Executor.LOCAL else ["--executor", executor.value]
        further += [word for text in cluster for word in ("--cluster", text)]
        warn(f"To go on: {shlex.join(['experiments_manager', 'sweep', str(sweep_file), '--resume', *further])}")
        raise typer.Exit(ExitCode.INTERRUPTED)


def _print(result: Any) -> None:
    counts = ", ".join(f"{number} {state}" for state, number in result.trials.items())
    typer.echo(f"{result.sweep_dir}: {result.reason} ({counts})")
    if result.best is None:
        typer.echo("No trial was finished.")
        return
    values = ", ".join(f"{name} {value:.6g}" for name, value in result.best["values"].items())
    typer.echo(f"Best: trial {result.best['number']}, {values}\n\n    {result.best['command']}\n")
    if result.report is not None:
        typer.echo(f"Report: {result.report}")
    if len(result.best["values"]) > 1:
        typer.echo(f"Pareto front: trials {', '.join(str(trial['number']) for trial in result.front)}")


@sweep.command()
def new(
    settings: options.SettingsFile,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The sweep file. By default beside SETTINGS.")
    ] = None,
) -> None:
    """Write a sweep file for a settings file.

    Its space is guessed from names and values of the hparams.
    """
    from experiments_manager.cli.training_session import start_engine
    from experiments_manager.sweeps.search.space_inference import write_sweep_file

    start_engine(debug=False)
    file = write_sweep_file(settings, output)
    typer.echo(f"{file} is ready. Look through its space, then run it with\n\n    experiments_manager sweep {file}\n")


@sweep.command(hidden=True)
def trial(folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of the job.")]) -> None:
    """Train the trial of a job; the script of the job calls this."""
    from experiments_manager.cli.training_session import start_engine
    from experiments_manager.common.signals import exit_process, stop_signals
    from experiments_manager.sweeps.jobs.job_process import run_job

    with stop_signals() as stop:
        start_engine(debug=False)
        code = run_job(folder.absolute(), stop)
    exit_process(code)  # the queue waits for the end of the process, which may take TensorFlow a while
