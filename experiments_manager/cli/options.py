"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SettingsFile = Annotated[Path, typer.Argument(metavar="SETTINGS", help="The settings module, a Python file.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Overrides = Annotated[
    list[str],
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Change a setting, or a key of hparams. May be given several times."
    ),
]
Serve = Annotated[
    bool, typer.Option("--serve", help="Serve the best version so far, at the settings' grpc_port and rest_port.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object, the last line of output.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show Python's tracebacks and TensorFlow's log.")]
