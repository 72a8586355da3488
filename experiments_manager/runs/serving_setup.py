"""model_serving_setup.ini: under which name and at which address the run's model is served.

`serve`, `predict` and `tools/start_model_serving.py` read it. The section and its first three keys are those of the
framework before this one. Every path in it is relative, so the run folder may be moved.
"""

from __future__ import annotations

import configparser
import dataclasses
import io
from pathlib import Path

from experiments_manager.common import atomic
from experiments_manager.runs.errors import RunError, explain

SETUP_FILE = "model_serving_setup.ini"
_SECTION = "SERVER"


@dataclasses.dataclass(frozen=True)
class ServingSetup:
    """Where clients find the model of a run."""

    host: str
    port: int
    """For gRPC."""
    rest_port: int
    model_name: str
    model_base_path: str = "exported_models"
    """Folder of the versions, relative to the run folder."""


def write_serving_setup(run_dir: Path, setup: ServingSetup) -> None:
    """Write the file, in one step.

    Raises:
        RunError: It cannot be written.
    """
    parser = configparser.ConfigParser(interpolation=None)
    parser[_SECTION] = {name: str(value) for name, value in dataclasses.asdict(setup).items()}
    text = io.StringIO()
    parser.write(text)
    try:
        atomic.write_text(run_dir / SETUP_FILE, text.getvalue())
    except OSError as error:
        raise explain(error, "write", run_dir / SETUP_FILE) from error


def read_serving_setup(run_dir: Path) -> ServingSetup | None:
    """Read the file of a run folder; `None` where there is none.

    Raises:
        RunError: It is damaged; the message says where.
    """
    file = run_dir / SETUP_FILE
    parser = configparser.ConfigParser(interpolation=None)
    try:
        if not parser.read(file, encoding="utf-8"):
            return None
        section = parser[_SECTION]
        return ServingSetup(
            host=section.get("host", "localhost"),
            port=section.getint("port", 9000),
            rest_port=section.getint("rest_port", 8501),
            model_name=section["model_name"],
            model_base_path=section.get("model_base_path", "exported_models"),
        )
    except (configparser.Error, KeyError, ValueError) as error:
        raise RunError(
            f"{file} is damaged: {error}. Expected a section [{_SECTION}] with host, port and model_name. "
            "Fix it, or remove it: then the defaults count."
        ) from error
