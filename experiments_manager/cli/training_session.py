"""What `train` and `resume` have in common: how a run is announced, served, and its end reported."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import typer

from experiments_manager.cli.quiet_tensorflow import silence_startup_logs
from experiments_manager.cli.results import ResultLine, run_summary
from experiments_manager.cli.staged_data import tell_unused_copies
from experiments_manager.common.console import warn
from experiments_manager.common.exit_codes import ExitCode
from experiments_manager.runs import Run, RunError

if TYPE_CHECKING:
    from experiments_manager.cli.sidecar import SidecarServer
    from experiments_manager.settings import Settings
    from experiments_manager.training.engine.outcome import RunResult


def start_engine(*, debug: bool, json: bool = False) -> ResultLine | None:
    """Prepare the process for commands that will import TensorFlow, before any code of the user's runs.

    Args:
        json: Whether standard output is for a result as JSON alone.
        debug: Whether to let TensorFlow say all it has to say.

    Returns:
        Where the result goes, if it is JSON.
    """
    output = ResultLine() if json else None
    if not debug:
        silence_startup_logs()
    return output


def run_to_its_end(
    train: Callable[..., RunResult],
    output: ResultLine | None,
    *,
    quiet: bool,
    serve: Settings | None = None,
    overrides: Sequence[str] = (),
) -> None:
    """Train, with a model server as a sidecar where that is wanted, then report how it ended.

    Args:
        train: Trains, as `api.train` and `api.resume` do; is given their `on_run`, `watchers` and `quiet`.
        output: Where to print the result as JSON, also that of a run that failed or was interrupted.
        quiet: Whether to say nothing as long as all goes well.
        serve: Settings of the experiment whose model is to be served meanwhile; `None` for no server.
        overrides: What a resume changes, which the run may not have kept yet when it is interrupted.

    Raises:
        typer.Exit: The run was interrupted.
        CommandLineError: There will be nothing to serve.
        ServerStartError: A port of the server's is taken.
    """
    watchers: list[SidecarServer] = []
    if serve:
        from experiments_manager.cli.sidecar import SidecarServer

        watchers.append(SidecarServer(serve, quiet=quiet))
    runs: list[Run] = []

    def announce(run: Run) -> None:
        runs.append(run)
        tell_unused_copies()
        if not quiet:
            warn(f"Run folder {run.path}")

    try:
        result = train(on_run=announce, watchers=watchers, quiet=quiet)
    except BaseException:
        if output and runs:
            with contextlib.suppress(RunError):  # an unreadable run.json must not hide why the run failed
                output.write(run_summary(runs[0]) | {"state": "failed"})  # a full disk may keep run.json from saying so
        raise
    finally:
        for watcher in watchers:
            watcher.close()
    if output:
        output.write(run_summary(Run(result.run_dir)))
    if result.state == "interrupted":
        changes = [word for override in overrides for word in ("--set", override)]
        warn(f"To go on: {shlex.join(['experiments_manager', 'resume', str(result.run_dir), *changes])}")
        raise typer.Exit(ExitCode.INTERRUPTED)
