"""`experiments_manager board`."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from experiments_manager.cli import options


def board(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of runs, or one run.")] = Path(
        "experiments"
    ),
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The port; by default 6006 or the next free one.")
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    debug: options.Debug = False,
) -> None:
    """Show runs in TensorBoard.

    Serves on the loopback address until Ctrl-C.
    """
    import webbrowser

    from experiments_manager.cli.training_session import start_engine
    from experiments_manager.common.console import warn
    from experiments_manager.monitoring.tensorboard.board import logs_of, start_board

    folder = logs_of(directory)
    start_engine(debug=debug)
    address = start_board(folder, port)
    asked_to_end = _on_stop_signals()
    typer.echo(f"TensorBoard shows {folder} at {address} (Ctrl-C ends it)")
    if open_browser and not webbrowser.open(address):
        warn("No browser could be opened. Open the address above in one.")
    asked_to_end.wait()


def _on_stop_signals() -> threading.Event:
    """Return an event that SIGINT and SIGTERM set."""
    asked = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        asked.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    return asked
