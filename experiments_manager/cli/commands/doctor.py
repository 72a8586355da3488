"""`experiments_manager doctor`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments_manager.cli import options
from experiments_manager.common.exit_codes import ExitCode

if TYPE_CHECKING:
    from experiments_manager.doctor.finding import Finding

_STYLES = {"ok": "green", "note": "yellow", "problem": "red"}


def doctor(
    working_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where run folders shall be made, by default experiments/.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Show what this machine has, and how to get what is missing."""
    from experiments_manager.doctor import examination

    findings = examination.examine(working_dir)
    usable = examination.is_usable(findings)
    if json:
        from experiments_manager.cli.results import as_line

        rows = [dataclasses.asdict(finding) | {"state": finding.state.value} for finding in findings]
        typer.echo(as_line({"usable": usable, "findings": rows}), nl=False)
    else:
        _print(findings)
    if not usable:
        raise typer.Exit(ExitCode.BAD_INPUT)


def _print(findings: list[Finding]) -> None:
    from experiments_manager.cli.tables import new_table, print_table, short

    table = new_table("state", "what", "found")
    for finding in findings:
        state = finding.state.value
        table.add_row(f"[{_STYLES[state]}]{state}[/]", short(finding.name), short(finding.text))
        if finding.remedy:
            table.add_row("", "", short(f"→ {finding.remedy}"))
    print_table(table)
