"""`experiments_manager new`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

STARTER = Path(__file__).with_name("starter")


def new(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make.")],
) -> None:
    """Make a starter experiment that trains as it stands."""
    settings_file = make_starter(directory)
    typer.echo(f"{settings_file} is ready. Train it with\n\n    experiments_manager train {settings_file}\n")


def make_starter(directory: Path) -> Path:
    """Write the starter experiment.

    Args:
        directory: The folder to write to; made where it is missing. It also names the experiment.

    Returns:
        The settings file, `mysettings_<name of the folder>.py`.

    Raises:
        RunError: A file of that name exists already, or the folder cannot be written.
    """
    from experiments_manager.runs import RunError
    from experiments_manager.runs.errors import explain

    name = re.sub(r"\W+", "_", directory.absolute().name).strip("_") or "experiment"
    target = directory / f"mysettings_{name}.py"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as file:
            file.write((STARTER / "mysettings_starter.py").read_text(encoding="utf-8"))
    except OSError as error:
        if target.exists():
            raise RunError(f"{target} exists already. Expected a new folder. Choose another one.") from error
        raise explain(error, "write", target) from error
    return target
