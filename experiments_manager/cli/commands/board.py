"""`experiments_manager board`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments_manager.cli import options
from experiments_manager.common.signals import shutdown_event


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
    with shutdown_event() as stopping:
        typer.echo(f"TensorBoard shows {folder} at {address} (Ctrl-C ends it)")
        if open_browser and not webbrowser.open(address):
            warn("No browser could be opened. Open the address above in one.")
        stopping.wait()
