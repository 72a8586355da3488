"""Engines: which server answers, and how it is started. All speak the same protocol and take the same flags."""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments_manager.protocol.errors import ServerStartError
from experiments_manager.serving.server.preflight import check_embedded, check_port

BINARY = "tensorflow_model_server"
IN_CONTAINER = "/models/served"
NO_APPTAINER = (
    "Neither apptainer nor singularity is on the path. Install Apptainer, which needs no root: "
    "`conda install -c conda-forge apptainer`; or on Ubuntu: `sudo add-apt-repository -y ppa:apptainer/ppa && sudo apt "
    "install apptainer`; see https://apptainer.org/docs/admin/main/installation.html. Or use `--engine embedded`."
)


class Engine(str, enum.Enum):
    """Who answers."""

    AUTO = "auto"
    EMBEDDED = "embedded"
    TENSORFLOW_MODEL_SERVER = "tensorflow_model_server"
    APPTAINER = "apptainer"


@dataclasses.dataclass(frozen=True)
class Service:
    """What is served, and where.

    Attributes:
        base_path: Folder of the versions.
        model_name: Name of the model in requests.
        host: Address to listen at.
        grpc_port: Port for gRPC.
        rest_port: Port for REST; 0 for none.
        flags: Further flags, as tensorflow_model_server has them.
        gpu: Whether the server may use a GPU.
        config_file: A file that `write_config` made, where one version is to be served and no other.
    """

    base_path: Path
    model_name: str
    host: str = "127.0.0.1"
    grpc_port: int = 9000
    rest_port: int = 8501
    flags: Sequence[str] = ()
    gpu: bool = False
    config_file: Path | None = None

    @property
    def grpc_address(self) -> str:
        """Where a client on this machine finds it."""
        return f"{_reachable(self.host)}:{self.grpc_port}"

    @property
    def url(self) -> str:
        """The model's URL for REST, without scheme."""
        return f"{_reachable(self.host)}:{self.rest_port}/v1/models/{self.model_name}"


def _reachable(host: str) -> str:
    if host in ("0.0.0.0", "::", ""):
        return "localhost"
    return f"[{host}]" if ":" in host else host


def choose_engine(engine: Engine, image: Path | str | None = None) -> Engine:
    """Find the engine to start, and check that all is there that it needs.

    Args:
        engine: The one that is asked for. `auto` takes an image if one is named, else the binary where it is on the
            path, else the embedded engine.
        image: An Apptainer image of TensorFlow Serving.

    Raises:
        ServerStartError: Binary, image or Apptainer is missing; the message says how to get it.
    """
    if engine == Engine.AUTO:
        engine = (
            Engine.APPTAINER if image else Engine.TENSORFLOW_MODEL_SERVER if shutil.which(BINARY) else Engine.EMBEDDED
        )
    if image and engine != Engine.APPTAINER:
        raise ServerStartError(f"An image is for the engine apptainer. Expected none, got {image}. Leave --image away.")
    if engine == Engine.TENSORFLOW_MODEL_SERVER and not shutil.which(BINARY):
        raise ServerStartError(
            f"{BINARY} is not on the path. Install TensorFlow Serving, use an image of it (`--image tf_server.sif`), "
            "or the server that comes with this package (`--engine embedded`)."
        )
    if engine == Engine.APPTAINER:
        _check_image(image)
        apptainer()
    if engine == Engine.EMBEDDED:
        check_embedded()
    return engine


def _check_image(image: Path | str | None) -> None:
    make = "apptainer build tf_server.sif docker://tensorflow/serving"
    if not image:
        raise ServerStartError(f"The engine apptainer needs an image. Give one by --image FILE. To make one: {make}")
    if not Path(image).expanduser().exists():
        raise ServerStartError(f"There is no image {image}. Check the path, or make one: {make}")


def apptainer() -> str:
    """Find Apptainer, or Singularity under its former name.

    Raises:
        ServerStartError: Neither is on the path; the message says how to install it.
    """
    found = shutil.which("apptainer") or shutil.which("singularity")
    if not found:
        raise ServerStartError(NO_APPTAINER)
    return found


def command(engine: Engine, service: Service, image: Path | str | None = None) -> list[str]:
    """Return the command line of a server.

    Args:
        engine: Not `auto`; see `choose_engine`.
        service: What to serve, and where.
        image: For `apptainer`.

    Raises:
        ServerStartError: The folder cannot be shown to a container.
    """
    if engine == Engine.EMBEDDED:
        start = [sys.executable, "-m", "experiments_manager.serving.server.flags"]
        return [*start, f"--host={service.host}", *_flags(service, str(service.base_path))]
    if engine == Engine.TENSORFLOW_MODEL_SERVER:
        return [BINARY, *_flags(service, str(service.base_path))]
    source = str(service.base_path)
    if set(source) & set(":,"):
        raise ServerStartError(f"{source} has `:` or `,` in its name, which Apptainer cannot bind. Rename the folder.")
    gpu = ["--nv"] if service.gpu else []
    mounts = ["--bind", f"{source}:{IN_CONTAINER}:ro"]
    for file in (flag.partition("=")[2] for flag in service.flags):
        if file.startswith("/") and Path(file).is_file():
            mounts += ["--bind", f"{file}:{file}:ro"]
    if service.config_file:
        mounts += ["--bind", f"{service.config_file}:{service.config_file}:ro"]
    return [apptainer(), "exec", *gpu, *mounts, str(Path(image).expanduser()), BINARY, *_flags(service, IN_CONTAINER)]


def _flags(service: Service, base_path: str) -> list[str]:
    model = [f"--model_name={service.model_name}", f"--model_base_path={base_path}"]
    if service.config_file:
        model = [f"--model_config_file={service.config_file}"]
    return [f"--port={service.grpc_port}", f"--rest_api_port={service.rest_port}", *model, *service.flags]


def write_config(file: Path, engine: Engine, service: Service, version: int) -> None:
    """Write the configuration of a server that is to serve one version and no other, as the engine reads it."""
    base_path = IN_CONTAINER if engine == Engine.APPTAINER else str(service.base_path)
    quoted = {"name": service.model_name, "base_path": base_path, "model_platform": "tensorflow"}
    lines = [f"    {name}: {json.dumps(text, ensure_ascii=False)}" for name, text in quoted.items()]
    policy = f"    model_version_policy {{ specific {{ versions: {version} }} }}"
    file.write_text("\n".join(["model_config_list {", "  config {", *lines, policy, "  }", "}", ""]), encoding="utf-8")


def environment(service: Service) -> dict[str, str]:
    """Return the environment of a server process; without a GPU where training may need it all."""
    hidden = {} if service.gpu else {"CUDA_VISIBLE_DEVICES": "-1"}
    return {**os.environ, **hidden}


def check_ports(
    service: Service, *, host: str | None = None, flags: tuple[str, str] = ("--grpc-port", "--rest-port")
) -> None:
    """Refuse ports that are taken, before anything is started.

    Args:
        service: What is to be served.
        host: Address that the server will listen at, where that is not the service's.
        flags: What to change the ports by, for messages.

    Raises:
        ServerStartError: A port is in use or may not be used.
    """
    if service.grpc_port == service.rest_port:
        raise ServerStartError(
            f"gRPC and REST need ports of their own. Expected two, got {service.grpc_port} twice. Change {flags[1]}."
        )
    for port, flag in zip((service.grpc_port, service.rest_port), flags, strict=True):
        if port:
            check_port(service.host if host is None else host, port, flag)
