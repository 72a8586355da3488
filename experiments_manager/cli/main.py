"""The command line: one file a command, put together here."""

from __future__ import annotations

import errno
import linecache
import logging
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from experiments_manager.cli import TRAINING_COMMANDS
from experiments_manager.cli.commands.board import board
from experiments_manager.cli.commands.check import check
from experiments_manager.cli.commands.compare import compare
from experiments_manager.cli.commands.data import data
from experiments_manager.cli.commands.doctor import doctor
from experiments_manager.cli.commands.evaluate import evaluate
from experiments_manager.cli.commands.explain import explain
from experiments_manager.cli.commands.federate import federate
from experiments_manager.cli.commands.jobs import cancel, logs
from experiments_manager.cli.commands.kafka import kafka
from experiments_manager.cli.commands.new import new
from experiments_manager.cli.commands.predict import predict
from experiments_manager.cli.commands.report import report as report_page
from experiments_manager.cli.commands.reproduce import reproduce
from experiments_manager.cli.commands.resume import resume
from experiments_manager.cli.commands.runs import runs
from experiments_manager.cli.commands.serve import serve
from experiments_manager.cli.commands.settings import settings
from experiments_manager.cli.commands.submit import submit
from experiments_manager.cli.commands.sweep import sweep
from experiments_manager.cli.commands.train import train
from experiments_manager.common.errors import UserError
from experiments_manager.common.exit_codes import ExitCode, table
from experiments_manager.common.machine.disk_space import FULL
from experiments_manager.common.signals import has_been_stopped, stop_listening
from experiments_manager.common.version import __version__
from experiments_manager.dialects import canonical_command_line

_OUTSIDE_CAUSES = (
    *FULL,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EMFILE,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)
"""Errors of the operating system for which neither we nor the user's code can be blamed."""


def report(error: Exception, *, debug: bool = False) -> ExitCode:
    """Say on standard error what went wrong.

    Args:
        error: What was raised.
        debug: Whether to show Python's traceback.

    Returns:
        The exit code that belongs to it.
    """
    if debug:
        traceback.print_exception(error)
    code, text = _explain(error)
    typer.secho(text, err=True, fg=typer.colors.RED)
    return code


def _explain(error: Exception) -> tuple[ExitCode, str]:
    from experiments_manager.settings import UserCodeError

    if isinstance(error, UserCodeError):
        return error.exit_code, "\n".join([str(error), *_source_line(error.location)])
    if isinstance(error, UserError):
        return error.exit_code, str(error)
    if isinstance(error, OSError) and error.errno in _OUTSIDE_CAUSES:
        return ExitCode.BAD_INPUT, f"{error}. Fix that, then run the command again."
    kind = type(error).__name__
    return ExitCode.BUG, (
        f"{kind}: {error}\n"
        "This is a fault of experiments_manager. Please report it, with what the same command prints with --debug."
    )


def _source_line(location: str) -> list[str]:
    """Return the line of the user's code at `file:line`, where it can be read."""
    file, _, line = location.rpartition(":")
    text = linecache.getline(file, int(line)).strip() if line.isdigit() else ""
    return [f"    {text}"] if text else []


NAME = "experiments_manager"

app = typer.Typer(
    name=NAME,
    help="Train, watch, export and serve TensorFlow / Keras 3 experiments from one settings module.",
    epilog=f"\b\nExit codes:\n{table()}",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help, in a third of the time
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
_RUNS = (train, resume, check, evaluate, explain, serve, predict, runs, compare, report_page, board, settings, new)
for command in (*_RUNS, doctor, reproduce, submit, logs, cancel):
    app.command()(command)
app.add_typer(data, name="data")
app.add_typer(kafka, name="kafka")
app.add_typer(federate, name="federate")
app.add_typer(sweep, name="sweep")


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Carry the options that stand before a command."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Args:
        arguments: What follows the program's name.

    Returns:
        The exit code; see `exit_codes`.
    """
    command, debug = list(arguments), "--debug" in arguments
    try:
        command = canonical_command_line(command)
        if command[:1] and command[0] not in TRAINING_COMMANDS:
            stop_listening()
        debug = "--debug" in command
        logging.basicConfig(
            handlers=[_StandardError()], level=logging.INFO if debug else logging.WARNING, format="%(message)s"
        )
        app(command, prog_name=NAME)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.DONE if end.code is None else ExitCode.BUG
    except Exception as error:
        if has_been_stopped():
            return ExitCode.INTERRUPTED
        return report(error, debug=debug)
    return ExitCode.DONE


class _StandardError(logging.StreamHandler):
    """Writes to what standard error is at that moment: a progress bar replaces it, to keep the lines above itself."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> object:
        return sys.stderr
