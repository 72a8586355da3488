"""`experiments_manager serve`."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import typing
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments_manager.cli import options
from experiments_manager.common.console import warn
from experiments_manager.serving.launch.serve_options import ServeOptions

_PATH = typer.Argument(metavar="RUN_OR_DIR", help="A run folder, or a folder whose subfolders are versions.")


def serve(path: Annotated[Path, _PATH], debug: options.Debug = False, **chosen: Any) -> None:
    """Serve the exported models of a run, also during training.

    New versions take over as training exports them, and no request is lost.
    """
    from experiments_manager import api
    from experiments_manager.cli.training_session import start_engine

    start_engine(debug=debug)
    logging.getLogger("experiments_manager.serving").setLevel(logging.DEBUG if debug else logging.INFO)
    api.serve(path, tell=warn, **chosen)


def _signature() -> inspect.Signature:
    """Return what `serve` takes, with an option for each field of `ServeOptions`."""
    path, debug, _ = inspect.signature(serve, eval_str=True).parameters.values()
    types = typing.get_type_hints(ServeOptions)
    parameters = [path]
    for field in dataclasses.fields(ServeOptions):
        names = [f"--{field.name.replace('_', '-')}"] if field.default is False else []
        kind = Annotated[types[field.name], typer.Option(*names, **field.metadata)]
        parameters.append(inspect.Parameter(field.name, path.kind, default=field.default, annotation=kind))
    return inspect.Signature([*parameters, debug])


serve.__signature__ = _signature()
