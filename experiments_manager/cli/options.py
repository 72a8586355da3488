"""Arguments and options that several commands share."""

from __future__ import annotations

import enum
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
StageData = Annotated[
    list[Path],
    typer.Option(
        "--stage-data",
        metavar="PATH",
        help="Copy this folder or file to the node's own disk first, and read the copy. May be given several times.",
    ),
]
WorkingDir = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Make the run folder here instead of in working_dir.")
]
RunName = Annotated[
    str | None, typer.Option(metavar="NAME", help="Exact name of the run folder, instead of one with the time.")
]


class Resume(str, enum.Enum):
    """Whether a run of the same name is continued."""

    NEVER = "never"
    AUTO = "auto"


ResumeByName = Annotated[
    Resume, typer.Option(help="auto: go on with the run of that --run-name, or start it if it does not exist.")
]
AcceptChangedData = Annotated[
    bool,
    typer.Option("--accept-changed-data", help="Go on although the data is not what it was, which is not exact."),
]
Serve = Annotated[
    bool, typer.Option("--serve", help="Serve the best version so far, at the settings' grpc_port and rest_port.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object, the last line of output.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show Python's tracebacks and TensorFlow's log.")]
