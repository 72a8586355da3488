"""`experiments_manager check`."""

from __future__ import annotations

from typing import Annotated

import typer

from experiments_manager.cli import options


def check(
    settings: options.SettingsFile,
    overrides: options.Overrides = [],  # noqa: B006  (typer copies it)
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Also build everything and run one batch of each split through it.")
    ] = False,
    debug: options.Debug = False,
) -> None:
    """Check a settings module; nothing is trained or written."""
    from experiments_manager import api
    from experiments_manager.cli.training_session import start_engine

    start_engine(debug=debug)
    seen = api.check(settings, overrides, dry_run=dry_run)
    for line in seen.lines if seen else ():
        typer.echo(line)
    typer.echo(f"{settings}: no problem found")
