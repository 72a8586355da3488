"""`experiments_manager compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments_manager.cli import options

if TYPE_CHECKING:
    from experiments_manager.runs import Comparison


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Two run folders or more.")],
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the curves of the runs over each other (.png, .svg or .pdf)."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Show what differs between runs.

    Results, hparams, settings, packages, git, host and code.
    """
    from experiments_manager import api
    from experiments_manager.cli.results import as_line

    comparison = api.compare_runs(runs)
    drawn = None if plot is None else api.plot_runs(runs, plot)
    if json:
        typer.echo(as_line(comparison.to_json() | ({} if drawn is None else {"plot": str(drawn)})), nl=False)
        return
    _print(comparison)
    if drawn is not None:
        typer.echo(f"\nCurves: {drawn}")


def _print(comparison: Comparison) -> None:
    from experiments_manager.runs.compare import run_letters

    letters = run_letters(len(comparison.runs))
    for letter, path in zip(letters, comparison.runs, strict=True):
        typer.echo(f"{letter}  {path}")
    sections = {
        "results": comparison.results | comparison.metrics,
        "hparams": comparison.hparams,
        "settings": comparison.settings,
        "packages": comparison.packages,
        "git": comparison.git,
        "host": comparison.host,
    }
    for title, values in sections.items():
        _print_section(title, letters, values)
    for file, diffs in comparison.code.items():
        for letter, diff in zip(letters[1:], diffs, strict=True):
            if diff:
                typer.echo(f"\n{file}, {letters[0]} to {letter}\n{diff.rstrip()}")
    same = [title for title, values in {**sections, "code": comparison.code}.items() if not values]
    if same:
        typer.echo(f"\nNo difference in {', '.join(same)}.")


def _print_section(title: str, letters: list[str], values: dict[str, list[Any]]) -> None:
    from experiments_manager.cli.tables import new_table, print_table, short

    if not values:
        return
    table = new_table(title, *letters)
    for name, row in values.items():
        table.add_row(short(name), *map(short, row))
    typer.echo()
    print_table(table)
