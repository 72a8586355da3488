"""`experiments_manager runs`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments_manager.cli import options
from experiments_manager.common.console import warn

if TYPE_CHECKING:
    from experiments_manager.runs import RunRow

STATE_STYLES = {"finished": "green", "running": "cyan", "interrupted": "yellow", "failed": "red", "killed": "red"}
STATE_STYLES |= {"queued": "blue", "requeued": "blue", "cancelled": "yellow"}


def runs(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to look, up to four levels deep.")] = Path(),
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="name, state, best, epochs, seconds, start or a key of hparams; -NAME: downwards."
        ),
    ] = None,
    watch: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Show them again and again, until Ctrl-C.")
    ] = None,
    clients: Annotated[
        bool, typer.Option("--clients", help="List the clients of federations, too, each below its federation.")
    ] = False,
    json: options.Json = False,
) -> None:
    """List runs with their states and best values.

    Of the hparams, those that differ are shown. `runs RUN/clients` lists the clients of one federation.
    """
    if watch is None:
        _show(directory, sort, clients=clients, json=json)
        return
    import time

    while True:
        typer.clear()
        _show(directory, sort, clients=clients, json=json)
        time.sleep(max(1.0, watch))


def _show(directory: Path, sort: str | None, *, clients: bool, json: bool) -> None:
    from experiments_manager import api
    from experiments_manager.cli.results import as_line
    from experiments_manager.cluster.jobs import with_job_states

    descending = bool(sort) and sort.startswith("-")
    found = api.list_runs(directory, sort and sort.removeprefix("-"), descending=descending, clients=clients)
    rows = with_job_states(found)
    if json:
        typer.echo(as_line({"runs": [row.to_json() for row in rows]}), nl=False)
    elif not rows:
        typer.echo(f"No runs in {directory.absolute()}.")
    else:
        _print_table(rows)


def _print_table(rows: list[RunRow]) -> None:
    from rich.markup import escape

    from experiments_manager.cli.tables import new_table, print_table, short
    from experiments_manager.runs import differing
    from experiments_manager.settings.problems import display_path

    hparams = differing([row.hparams for row in rows if row.state != "unreadable"])
    table = new_table("state", "best", "epochs", "time", *hparams, "run")
    for row in rows:
        table.add_row(
            f"[{STATE_STYLES.get(row.state, 'red')}]{row.state}[/]",
            short(_best(row)),
            short(row.epochs),
            _duration(row.seconds),
            *(short(row.hparams.get(name)) for name in hparams),
            escape(display_path(row.path)),
        )
    print_table(table)
    for row in rows:
        if row.problem:
            warn(row.problem)


def _best(row: RunRow) -> str:
    if row.best is None:
        return ""
    at = f" at {row.best_epoch}" if row.best_epoch else ""
    return f"{row.best_name} {row.best:.4g}{at}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    from experiments_manager.common.display.quantities import format_duration

    return format_duration(seconds)
