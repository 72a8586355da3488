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
    warnings: list[str] = []
    seen = api.check(settings, overrides, dry_run=dry_run, on_warnings=warnings.extend)
    for line in seen.lines if seen else ():
        typer.echo(line)
    unseen = seen.not_looked_at if seen else []
    for text in unseen:
        typer.echo(f"not looked at: {text}")
    warnings += [line for line in seen.lines if line.startswith("warning")] if seen else []
    count = f"{len(warnings)} warning{'s' if len(warnings) > 1 else ''}"
    found = f"nothing that stops a training, but {count}" if warnings else "no problem found"
    typer.echo(f"{settings}: {found}{' in what was looked at' if unseen else ''}")
