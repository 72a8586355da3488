"""`experiments_manager resume`."""

from __future__ import annotations

import functools

from experiments_manager.cli import options


def resume(
    run: options.RunFolder,
    overrides: options.Overrides = [],  # noqa: B006  (typer copies it)
    accept_changed_data: options.AcceptChangedData = False,
    stage_data: options.StageData = [],  # noqa: B006
    serve: options.Serve = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Go on with a run that was interrupted or killed."""
    from experiments_manager import api
    from experiments_manager.cli.staged_data import staged_data
    from experiments_manager.cli.training_session import run_to_its_end, start_engine
    from experiments_manager.runs.interruption import interruption_recorded
    from experiments_manager.runs.run_settings import load_run_settings, refuse_client_run

    opened = api.load_run(run)
    refuse_client_run(opened)

    with interruption_recorded(opened):
        output = start_engine(json=json, debug=debug)
        with staged_data(stage_data, opened.settings_file, quiet=quiet):
            settings = load_run_settings(opened, overrides) if serve else None
            train_on = functools.partial(
                api.resume, opened, overrides=overrides, accept_changed_data=accept_changed_data
            )
            run_to_its_end(train_on, output, quiet=quiet, serve=settings, overrides=overrides)
