"""`experiments_manager train`."""

from __future__ import annotations

import functools
import sys

from experiments_manager.cli import options
from experiments_manager.cli.federation_session import join_as_before
from experiments_manager.common.console import warn


def train(
    settings: options.SettingsFile,
    overrides: options.Overrides = [],  # noqa: B006  (typer copies it)
    working_dir: options.WorkingDir = None,
    run_name: options.RunName = None,
    resume: options.ResumeByName = options.Resume.NEVER,
    accept_changed_data: options.AcceptChangedData = False,
    stage_data: options.StageData = [],  # noqa: B006
    serve: options.Serve = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Train an experiment in a new run folder.

    Ctrl-C stops it at the next step, where `resume` goes on later.
    """
    from experiments_manager import api
    from experiments_manager.cli.staged_data import staged_data
    from experiments_manager.cli.training_session import run_to_its_end, start_engine

    if not quiet:
        warn(f"Training {settings}")
    output = start_engine(json=json, debug=debug)
    with staged_data(stage_data, settings, overrides, quiet=quiet):
        loaded = api.load_settings(settings, overrides)
        if loaded.enable_federated_learning:
            join_as_before(loaded, working_dir, quiet=quiet)
            return
        train_it = functools.partial(
            api.train,
            loaded,
            working_dir=working_dir,
            run_name=run_name,
            resume=resume.value,
            accept_changed_data=accept_changed_data,
            command=["experiments_manager", *sys.argv[1:]],
        )
        changes = overrides if resume is options.Resume.AUTO else ()  # a new run keeps them from its start on
        run_to_its_end(train_it, output, quiet=quiet, serve=loaded if serve else None, overrides=changes)
