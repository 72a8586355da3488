"""The command line: one file a command, put together here."""

from __future__ import annotations

import logging
import sys
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
from experiments_manager.cli.errors import report
from experiments_manager.common.exit_codes import ExitCode, table
from experiments_manager.common.signals import has_been_stopped, stop_listening
from experiments_manager.common.version import __version__
from experiments_manager.dialects import canonical_command_line

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
