"""Where a run's model is served, and with which patience to ask for it; read without loading the run's settings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from experiments_manager.runs import Run, RunError, open_run
from experiments_manager.runs.serving_setup import SETUP_FILE, read_serving_setup


@dataclasses.dataclass(frozen=True)
class Target:
    """A model to ask, and how.

    Attributes:
        path: The run folder.
        address: `host:port` of the gRPC service.
        model: Name of the model.
        timeout: The setting `request_timeout`, in seconds.
        patience: The setting `wait_for_server`, in seconds.
        max_message_bytes: The setting of that name.
    """

    path: Path
    address: str
    model: str
    timeout: float = 10.0
    patience: float = 60.0
    max_message_bytes: int = 512 * 2**20

    def client_options(self) -> dict[str, Any]:
        """What `Client` takes."""
        options = dataclasses.asdict(self)
        del options["path"]
        return options


def find_target(run: Run | Path | str) -> Target:
    """Reads where a run's model is served.

    Args:
        run: The run, or its folder.

    Raises:
        RunError: There is no such run, or it does not say how its model is served.
    """
    run = run if isinstance(run, Run) else open_run(run)
    setup = read_serving_setup(run.path)
    if setup is None:
        raise RunError(
            f"{run.path} has no {SETUP_FILE}, which says where its model is served. "
            "Start the server: experiments_manager serve RUN"
        )
    settings = run.manifest.get("settings") or {}
    given = {
        field: settings[name]
        for field, name in (
            ("timeout", "request_timeout"),
            ("patience", "wait_for_server"),
            ("max_message_bytes", "max_message_bytes"),
        )
        if settings.get(name) is not None
    }
    return Target(run.path, f"{setup.host}:{setup.port}", setup.model_name, **given)
