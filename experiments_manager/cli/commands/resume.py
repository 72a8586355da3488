"""`experiments_manager resume`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from experiments_manager.cli import options

if TYPE_CHECKING:
    from experiments_manager.runs import Run
    from experiments_manager.training.engine.outcome import RunResult


def resume(
    run: options.RunFolder,
    overrides: options.Overrides = [],  # noqa: B006  (typer copies it)
    serve: options.Serve = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Go on with a run that was interrupted or killed."""
    from experiments_manager import api
    from experiments_manager.cli.training_session import run_to_its_end, start_engine
    from experiments_manager.runs.interruption import interruption_recorded
    from experiments_manager.runs.run_settings import load_run_settings

    opened = api.load_run(run)

    def action(announce: Callable[[Run], None]) -> RunResult:
        return api.resume(opened, overrides=overrides, quiet=quiet, on_run=announce)

    with interruption_recorded(opened):
        output = start_engine(json=json, debug=debug)
        settings = load_run_settings(opened, overrides) if serve else None
        run_to_its_end(action, output, quiet=quiet, serve=settings, overrides=overrides)
