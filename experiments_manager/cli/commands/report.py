"""`experiments_manager report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments_manager.cli import options


def report(
    place: Annotated[Path, typer.Argument(metavar="RUN|DIR", help="A run folder, or a folder of runs.")] = Path(),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The page. By default report.html there.")
    ] = None,
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    json: options.Json = False,
) -> None:
    """Write an HTML page about a run or a folder of runs.

    Settings, curves, figures and a table of runs; it needs no server and no network.
    """
    from experiments_manager import api
    from experiments_manager.cli.results import as_line

    page = api.report(place, output).absolute()
    if json:
        typer.echo(as_line({"report": str(page)}), nl=False)
    else:
        typer.echo(str(page))
    if open_it:
        typer.launch(page.as_uri())
