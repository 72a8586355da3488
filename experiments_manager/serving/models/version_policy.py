"""What to serve, and what became of it: model configurations, version policies, and the states of versions."""

from __future__ import annotations

import dataclasses
import enum
import logging
import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments_manager.protocol.status import Code, invalid_argument

logger = logging.getLogger(__name__)

_SPECIAL_FILES = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
_TENSORFLOW = 1  # `ModelType`, the field that `model_platform` has replaced


class State(enum.IntEnum):
    """Where a version is in its life; the numbers are those of `ModelVersionStatus.State`."""

    UNKNOWN = 0
    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclasses.dataclass(frozen=True)
class VersionStatus:
    """State of one version.

    Attributes:
        version: Its number.
        state: Where it is in its life.
        code: `OK`, or the code of the error that ended it or that its loading is being retried for.
        message: The reason, empty where all is well.
    """

    version: int
    state: State
    code: Code = Code.OK
    message: str = ""


@dataclasses.dataclass(frozen=True)
class VersionPolicy:
    """Which of the versions on the disk are to be served.

    Attributes:
        kind: `latest`, `all` or `specific`.
        count: How many of the newest, for `latest`.
        versions: Which, for `specific`.
    """

    kind: str = "latest"
    count: int = 1
    versions: tuple[int, ...] = ()

    def choose(self, numbers: Sequence[int]) -> set[int]:
        """Choose among the versions on the disk."""
        if self.kind == "all":
            return set(numbers)
        if self.kind == "specific":
            return set(numbers) & set(self.versions)
        return set(sorted(numbers)[-self.count :])


class LabelRule(enum.Enum):
    """Which versions a label may name."""

    AVAILABLE = "available"
    """Versions that answer."""
    UNUSED = "unused"
    """Any version, where the label names no other one so far; else one that answers."""
    ANY = "any"
    """Any version."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """One model to serve.

    Attributes:
        name: Its name in requests.
        base_path: Folder whose subfolders with numbers for names are its versions.
        policy: Which of them to serve.
        labels: Names for versions, such as `stable` and `canary`.
    """

    name: str
    base_path: Path
    policy: VersionPolicy = VersionPolicy()
    labels: Mapping[str, int] = dataclasses.field(default_factory=dict)


def check_files(folder: Path) -> None:
    """Look whether a version holds nothing but files and folders: to open a FIFO waits for ever, and a device may too.

    Raises:
        ServingError: INVALID_ARGUMENT for a FIFO, a socket, or a device.
    """
    seen = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        status = Path(here).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above
            folders.clear()
        seen.add((status.st_dev, status.st_ino))
        for name in files:
            path = Path(here, name)
            try:
                mode = path.stat().st_mode
            except OSError:  # removed meanwhile, or a link to nowhere
                continue
            if not stat.S_ISREG(mode):
                kind = _SPECIAL_FILES.get(stat.S_IFMT(mode), "a special file")
                raise invalid_argument(f"{path} is {kind}. Expected a regular file. Export the model again")


def configs_from_proto(server_config: object) -> list[ModelConfig]:
    """Read a `ModelServerConfig`, from a file or a reload request.

    Args:
        server_config: The message.

    Returns:
        The models that it lists.

    Raises:
        ServingError: INVALID_ARGUMENT, with what is wrong in it.
    """
    if server_config.WhichOneof("config") == "custom_model_config":
        raise invalid_argument(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. "
            "Only ModelConfigList is currently supported"
        )
    configs: dict[str, ModelConfig] = {}
    for entry in server_config.model_config_list.config:
        if not entry.name:
            raise invalid_argument("ModelConfig has no name. Expected a name for each model")
        if entry.name in configs:
            raise invalid_argument(f"Illegal to list model {entry.name} multiple times in config list")
        if entry.model_platform not in ("", "tensorflow", "tflite"):
            raise invalid_argument(f"Model {entry.name} requests unsupported platform {entry.model_platform}")
        if entry.model_type and entry.model_platform:
            raise invalid_argument(
                "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform."
            )
        if entry.model_type not in (0, _TENSORFLOW):
            raise invalid_argument(f"ModelServerConfig::model_type choice {entry.model_type} not supported.")
        base_path = local_folder(entry.base_path)
        if not base_path.is_absolute():
            raise invalid_argument(
                f"Expected model {entry.name} to have an absolute path or URI; got base_path()={entry.base_path}"
            )
        configs[entry.name] = ModelConfig(entry.name, base_path, _policy(entry), dict(entry.version_labels))
    return list(configs.values())


def local_folder(path: str) -> Path:
    """Read a path or a URI `file:///…`.

    Raises:
        ServingError: INVALID_ARGUMENT for a URI of another kind, such as `gs://…`.
    """
    path = path.removeprefix("file://")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
        raise invalid_argument(
            f"The base path is not local. Expected a folder of this machine, got {path}. Mount it, or copy it to here"
        )
    return Path(path)


def _policy(entry: object) -> VersionPolicy:
    policy = entry.model_version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return VersionPolicy("all")
    if choice == "specific":
        if not policy.specific.versions:
            raise invalid_argument(f"Model {entry.name}: the specific version policy lists no versions")
        return VersionPolicy("specific", versions=tuple(policy.specific.versions))
    return VersionPolicy("latest", count=policy.latest.num_versions or 1)
