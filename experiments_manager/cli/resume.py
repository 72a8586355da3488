"""`experiments_manager resume`."""

from __future__ import annotations

from experiments_manager.cli import options


def resume(
    run: options.RunFolder,
    overrides: options.Overrides = [],  # noqa: B006  (typer copies it)
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Go on with a run that was interrupted or killed."""
    from experiments_manager import api
    from experiments_manager.cli.engine import run_to_its_end, start_engine

    opened = api.load_run(run)
    output = start_engine(json=json, debug=debug)
    run_to_its_end(
        lambda announce: api.resume(opened, overrides=overrides, quiet=quiet, on_run=announce), output, quiet=quiet
    )
