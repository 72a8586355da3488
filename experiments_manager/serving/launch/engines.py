"""Engines: which server answers, and how it is started. All speak the same protocol and take the same flags."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

from experiments_manager.protocol.errors import ServerStartError
from experiments_manager.serving.launch.serve_options import Engine
from experiments_manager.serving.server.flag_table import ServerFlags
from experiments_manager.serving.server.flags import command_line
from experiments_manager.serving.server.preflight import check_embedded, check_port

BINARY = "tensorflow_model_server"
IN_CONTAINER = "/models/served"
NO_APPTAINER = (
    "Neither apptainer nor singularity is on the path. Install Apptainer, which needs no root: "
    "`conda install -c conda-forge apptainer`; or on Ubuntu: `sudo add-apt-repository -y ppa:apptainer/ppa && sudo apt "
    "install apptainer`; see https://apptainer.org/docs/admin/main/installation.html. Or use `--engine embedded`."
)


@dataclasses.dataclass(frozen=True)
class Service:
    """What is served, and where.

    Attributes:
        flags: The server's flags, with the absolute folder of the versions.
        gpu: Whether the server may use a GPU.
    """

    flags: ServerFlags
    gpu: bool = False

    @property
    def grpc_address(self) -> str:
        """Where a client on this machine finds it."""
        return f"{_reachable(self.flags.host)}:{self.flags.port}"

    @property
    def url(self) -> str:
        """The model's URL for REST, without scheme."""
        return f"{_reachable(self.flags.host)}:{self.flags.rest_api_port}/v1/models/{self.flags.model_name}"


def _reachable(host: str) -> str:
    if host in ("0.0.0.0", "::", ""):
        return "localhost"
    return f"[{host}]" if ":" in host else host


def choose_engine(engine: Engine, image: Path | str | None = None) -> Engine:
    """Find the engine to start, and check that all is there that it needs.

    Args:
        engine: What is asked for. `auto` takes an image if one is named, else the binary where it is on the
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
        raise ServerStartError(f"Image {image} not found. Check the path, or make one: {make}")


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
    """Return the command line of TensorFlow Serving.

    Args:
        engine: `tensorflow_model_server` or `apptainer`.
        service: What to serve, and where; TensorFlow Serving has no flag for the host, and listens everywhere.
        image: For `apptainer`.

    Raises:
        ServerStartError: The folder cannot be shown to a container.
    """
    flags = dataclasses.replace(service.flags, host=ServerFlags.host)
    if engine == Engine.TENSORFLOW_MODEL_SERVER:
        return [BINARY, *command_line(flags)]
    source = flags.model_base_path
    if set(source) & set(":,"):
        raise ServerStartError(f"{source} has `:` or `,` in its name, which Apptainer cannot bind. Rename the folder.")
    files = [text for text in dataclasses.astuple(flags) if str(text).startswith("/") and Path(text).is_file()]
    mounts = [f"{source}:{IN_CONTAINER}:ro", *(f"{file}:{file}:ro" for file in files)]
    binds = [word for mount in mounts for word in ("--bind", mount)]
    inside = command_line(dataclasses.replace(flags, model_base_path=IN_CONTAINER))
    return [
        apptainer(),
        "exec",
        *(["--nv"] if service.gpu else []),
        *binds,
        str(Path(image).expanduser()),
        BINARY,
        *inside,
    ]


def write_config(file: Path, engine: Engine, service: Service, version: int) -> None:
    """Write the configuration of a server that is to serve one version and no other, as the engine reads it."""
    base_path = IN_CONTAINER if engine == Engine.APPTAINER else service.flags.model_base_path
    quoted = {"name": service.flags.model_name, "base_path": base_path, "model_platform": "tensorflow"}
    lines = [f"    {name}: {json.dumps(text, ensure_ascii=False)}" for name, text in quoted.items()]
    policy = f"    model_version_policy {{ specific {{ versions: {version} }} }}"
    file.write_text("\n".join(["model_config_list {", "  config {", *lines, policy, "  }", "}", ""]), encoding="utf-8")


def environment(service: Service) -> dict[str, str]:
    """Return the environment of a server process; without a GPU where training may need it all."""
    hidden = {} if service.gpu else {"CUDA_VISIBLE_DEVICES": "-1"}
    return {**os.environ, **hidden}


def check_ports(
    flags: ServerFlags, *, host: str | None = None, options: tuple[str, str] = ("--grpc-port", "--rest-port")
) -> None:
    """Refuse ports that are taken, before anything is started.

    Args:
        flags: What is to be served.
        host: Address that the server will listen at, where that is not the flags'.
        options: What to change the ports by, for messages.

    Raises:
        ServerStartError: A port is in use or may not be used.
    """
    if flags.port == flags.rest_api_port:
        raise ServerStartError(
            f"gRPC and REST need ports of their own. Expected two, got {flags.port} twice. Change {options[1]}."
        )
    for port, option in zip((flags.port, flags.rest_api_port), options, strict=True):
        if port:
            check_port(flags.host if host is None else host, port, option)
