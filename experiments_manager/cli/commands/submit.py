"""`experiments_manager submit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments_manager.cli import options
from experiments_manager.cli.commands.train import train
from experiments_manager.common.console import warn

if TYPE_CHECKING:
    from experiments_manager.cluster.submission import Submission, Training


def submit(
    command: Annotated[
        list[str] | None, typer.Argument(metavar="-- COMMAND", help="A command, e.g. train mysettings.py.")
    ] = None,
    partition: Annotated[str | None, typer.Option(metavar="NAME", help="Partition of the cluster.")] = None,
    time: Annotated[str | None, typer.Option(metavar="TIME", help="Limit: minutes, HH:MM:SS or D-HH:MM:SS.")] = None,
    gpus: Annotated[str | None, typer.Option(metavar="N", help="GPUs of each node: a number, or TYPE:NUMBER.")] = None,
    nodes: Annotated[int | None, typer.Option(metavar="N", help="Number of nodes.")] = None,
    cpus: Annotated[int | None, typer.Option(metavar="N", help="Processors of each node.")] = None,
    mem: Annotated[str | None, typer.Option(metavar="SIZE", help="Memory of each node, e.g. 16G.")] = None,
    account: Annotated[str | None, typer.Option(metavar="NAME", help="Account that pays.")] = None,
    constraint: Annotated[str | None, typer.Option(metavar="NAMES", help="Features that a node must have.")] = None,
    image: Annotated[str | None, typer.Option(metavar="FILE", help="Apptainer image to run the command in.")] = None,
    bind: Annotated[
        list[str], typer.Option(metavar="PATH", help="Folder that the image sees. May be given several times.")
    ] = [],  # noqa: B006  (typer copies it)
    setup: Annotated[
        list[str], typer.Option(metavar="LINE", help="Shell line before the command, e.g. module load …")
    ] = [],  # noqa: B006
    python: Annotated[str | None, typer.Option(metavar="FILE", help="Python to run the command with.")] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the job in the queue.")] = None,
    array: Annotated[
        list[str],
        typer.Option(
            metavar="GRID", help="NAME=V1,V2,…: a task for each value, or combination; or a file, a line a task."
        ),
    ] = [],  # noqa: B006
    stage_data: options.StageData = [],  # noqa: B006
    max_requeues: Annotated[int | None, typer.Option(metavar="N", help="How often it is queued again.")] = None,
    warning: Annotated[
        int | None, typer.Option(metavar="SECONDS", help="How long before the limit the run is told to stop.")
    ] = None,
    sbatch: Annotated[
        list[str], typer.Option(metavar="OPTION", help="Further option of sbatch, e.g. --sbatch=--qos=long")
    ] = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the script, and submit nothing.")] = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Submit a command to SLURM.

    A training goes on in its run folder until it is finished. Defaults of a site are in
    ~/.config/experiments_manager/cluster.toml, those of an experiment in its setting `cluster`.
    """
    from experiments_manager.cluster import submission

    given = {
        **{"partition": partition, "time": time, "gpus": gpus, "nodes": nodes, "cpus": cpus, "mem": mem},
        **{"account": account, "constraint": constraint, "image": image, "python": python, "name": name},
        **{"max_requeues": max_requeues, "warning": warning},
        **{key: value or None for key, value in {"bind": bind, "setup": setup, "sbatch": sbatch}.items()},
    }
    submitted = submission.submit(
        command or [], given, training_of, arrays=array, stage_data=stage_data, dry_run=dry_run
    )
    if json:
        from experiments_manager.cli.results import as_line

        typer.echo(as_line({"job": submitted.id, "runs": [str(path) for path in submitted.runs]}), nl=False)
    elif dry_run:
        typer.echo(submitted.script, nl=False)
    else:
        _tell(submitted)


def training_of(words: Sequence[str]) -> Training:
    """Take apart what follows `train`, as that command would.

    Raises:
        click.UsageError: It would refuse these words.
    """
    from experiments_manager.cluster.submission import Training

    parser = typer.Typer(add_completion=False)
    parser.command()(train)
    command = typer.main.get_command(parser)
    values = command.make_context("train", list(words)).params
    names = {parameter.name: parameter.opts[0] for parameter in command.params}
    own = {name: values.pop(name) for name in ("settings", "overrides", "working_dir", "run_name")}
    goes_on = values.pop("resume") is options.Resume.AUTO
    further = [names[name] for name, value in values.items() if value is True]
    further += [word for name, value in values.items() if isinstance(value, Sequence) for item in value
                for word in (names[name], str(item))]  # fmt: skip
    return Training(**own, goes_on=goes_on, further=further)


def _tell(submitted: Submission) -> None:
    typer.echo(f"Submitted job {submitted.id}")
    for run in submitted.runs:
        typer.echo(f"Run folder {run}")
    if submitted.runs:
        first = submitted.runs[0]
        warn(
            f"To watch it: experiments_manager logs {_quoted(first)} --follow; to end it: experiments_manager cancel "
            f"{_quoted(first)}"
        )


def _quoted(path: Path) -> str:
    import shlex

    from experiments_manager.settings.problems import display_path

    return shlex.quote(str(display_path(path)))
