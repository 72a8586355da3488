"""Where a model is served, and how long to wait for it; read without loading any settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments_manager.dialects import foreign_run
from experiments_manager.export import model_folders

_FROM_SETTINGS = {
    "timeout": "request_timeout",
    "patience": "wait_for_server",
    "max_message_bytes": "max_message_bytes",
    "kafka_servers": "kafka_bootstrap_servers",
    "kafka_options": "kafka_options",
    "kafka_max_bad": "kafka_max_bad",
    "class_names": "class_names",
}
_DEFAULT_HOST, _DEFAULT_PORT = "localhost", 9000


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A model to ask, and how.

    Attributes:
        path: The run folder, or the folder of versions.
        is_run: Whether it is a run folder.
        address: `host:port` of the gRPC service.
        model: Name of the model.
        timeout: The setting `request_timeout`, in seconds.
        patience: The setting `wait_for_server`, in seconds.
        max_message_bytes: The setting of that name.
        kafka_servers: The setting `kafka_bootstrap_servers`.
        kafka_options: The setting of that name; secrets are names of variables of the environment.
        kafka_max_bad: The setting of that name; `None` without a run.
        class_names: The setting of that name.
        foreign_settings: The settings file in a run folder of another framework, whose path `path` is then.
    """

    path: Path
    is_run: bool
    address: str
    model: str
    timeout: float = 10.0
    patience: float = 60.0
    max_message_bytes: int = 512 * 2**20
    kafka_servers: Sequence[str] = ("localhost:9092",)
    kafka_options: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    kafka_max_bad: float | None = None
    class_names: Sequence[str] = ()
    foreign_settings: Path | None = None

    @property
    def has_settings(self) -> bool:
        """Whether `path` is a folder of a run, whose settings say what to ask."""
        return self.is_run or self.foreign_settings is not None

    def client_options(self) -> dict[str, Any]:
        """Return the keyword arguments with which to make a `Client`."""
        fields = ("address", "model", "timeout", "patience", "max_message_bytes")
        return {name: getattr(self, name) for name in fields}


def find_endpoint(path: Path | str) -> Endpoint:
    """Read where a run's model is served.

    Args:
        path: A run folder, its `exported_models`, or any folder whose subfolders are versions.

    Raises:
        ServerStartError: The folder is not found.
        RunError: It is a run folder, but a damaged one.
    """
    found = model_folders.find_target(path)
    host, port = (found.setup.host, found.setup.port) if found.setup else (_DEFAULT_HOST, _DEFAULT_PORT)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    foreign = foreign_run(found.base_path.parent) if found.run is None else None
    if foreign is not None:
        return Endpoint(found.base_path.parent, False, address, found.model_name, foreign_settings=foreign[1])
    if found.run is None:
        return Endpoint(found.base_path, False, address, found.model_name)
    settings = found.run.manifest.get("settings") or {}
    given = {field: settings[name] for field, name in _FROM_SETTINGS.items() if settings.get(name) is not None}
    return Endpoint(found.run.path, True, address, found.model_name, **given)
