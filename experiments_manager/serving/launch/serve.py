"""Serving a run, or any folder of versions, by whichever engine: what the command `serve` does."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shlex
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments_manager.export.model_folders import Target, find_target, versions_in, wait_for_version
from experiments_manager.protocol.errors import ServerStartError
from experiments_manager.serving.launch.engines import (
    BINARY,
    Engine,
    Service,
    check_ports,
    choose_engine,
    command,
    write_config,
)

logger = logging.getLogger(__name__)

GRPC_PORT, REST_PORT = 9000, 8501
LIMITS = {
    "max_message_bytes": "it takes messages of up to 2 GiB",
    "max_in_flight": "it queues what it cannot answer yet, up to max_enqueued_batches of --batching-parameters-file",
    "max_bytes_in_flight": "it reads and queues any number of bytes",
    "max_connections": "it takes as many connections as the system lets it",
    "header_timeout_seconds": "it waits for headers for any time",
    "body_timeout_seconds": "it waits for bodies for any time",
    "idle_timeout_seconds": "it keeps connections that are silent",
}
"""Limits of the embedded engine, named as its flags and as settings; and what TensorFlow Serving does instead."""


@dataclasses.dataclass(frozen=True)
class ServeOptions:
    """How to serve.

    Attributes:
        engine: Who answers.
        image: Apptainer image of TensorFlow Serving.
        model_name: Name in requests; by default the run's, or the folder's.
        host: Address to listen at; the embedded engine alone can choose it.
        grpc_port: Port for gRPC; by default the one in model_serving_setup.ini, else 9000.
        rest_port: Port for REST, 0 for none; by default likewise, else 8501.
        batching: Whether requests that come together share a call.
        batching_parameters_file: TensorFlow Serving's batching parameters.
        ssl_config_file: TensorFlow Serving's TLS configuration.
        auth_token_file: Tokens that requests must show; the embedded engine alone knows them.
        gpu: Whether the server may use a GPU, also where the run's setting `serve_on_gpu` does not say so.
        max_message_bytes: Largest request and reply; by default the run's setting of that name, else 2 GiB. The
            embedded engine alone can be told.
        max_in_flight: Requests that are answered at once, 0 for any number; by default the run's setting, else 0. The
            embedded engine alone can be told.
        max_bytes_in_flight: Bytes of requests that are read or answered at once; by default the run's setting, else
            2 GiB. This and the following are for the embedded engine alone, too.
        max_connections: Connections by REST, and as many by gRPC; by default the run's setting, else 10,000.
        header_timeout_seconds: Longest time for the headers of a request to come, 0 for any; by default the run's
            setting, else 10.
        body_timeout_seconds: Longest time for a body to come or to leave at less than 16 KiB a second; by default the
            run's setting, else 30.
        idle_timeout_seconds: Longest time between two requests of a connection; by default the run's setting, else 60.
        prefer_tflite_model: Whether `model.tflite` is served where a version has one beside its SavedModel.
        model_version: The one version to serve; by default the newest, and what training adds.
    """

    engine: Engine = Engine.AUTO
    image: Path | None = None
    model_name: str | None = None
    host: str = "127.0.0.1"
    grpc_port: int | None = None
    rest_port: int | None = None
    batching: bool = True
    batching_parameters_file: Path | None = None
    ssl_config_file: Path | None = None
    auth_token_file: Path | None = None
    gpu: bool = False
    max_message_bytes: int | None = None
    max_in_flight: int | None = None
    max_bytes_in_flight: int | None = None
    max_connections: int | None = None
    header_timeout_seconds: float | None = None
    body_timeout_seconds: float | None = None
    idle_timeout_seconds: float | None = None
    prefer_tflite_model: bool = False
    model_version: int | None = None


def serve(path: Path | str, options: ServeOptions | None = None, tell: Callable[[str], None] = logger.info) -> None:
    """Serve until SIGINT or SIGTERM; new versions take over as they appear.

    Args:
        path: A run folder, its `exported_models`, or any folder whose subfolders are versions.
        options: How to serve.
        tell: Called with each sentence that a person may want to read.

    Raises:
        ServerStartError: There is nothing to serve and nothing coming, a port is taken, or the engine is missing.
        RunError: The run folder is damaged.
    """
    options = options or ServeOptions()
    target = find_target(path, options.model_name)
    engine = choose_engine(options.engine, options.image)
    service = service_of(target, options, engine)
    check_ports(service, host=None if engine == Engine.EMBEDDED else "")
    if wait_for_version(target, tell) is None:
        return
    with contextlib.ExitStack() as stack:
        if options.model_version is not None:
            service = _of_one_version(service, engine, options.model_version, stack)
        _run(service, target, engine, options.image, tell)


def _of_one_version(service: Service, engine: Engine, version: int, stack: contextlib.ExitStack) -> Service:
    """Return the same service, of one version alone; the stack removes its configuration."""
    there = versions_in(service.base_path)
    if version not in there:
        raise ServerStartError(
            f"There is no version {version} in {service.base_path}. Expected {', '.join(map(str, there))}. Name one of "
            "these, or none for the newest."
        )
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="experiments_manager_"))
    file = Path(folder) / "models.config"
    write_config(file, engine, service, version)
    return dataclasses.replace(service, config_file=file)


def _run(service: Service, target: Target, engine: Engine, image: Path | None, tell: Callable[[str], None]) -> None:
    if engine == Engine.EMBEDDED:
        _run_embedded(service, target, tell)
        return

    from experiments_manager.serving.launch.external_process import run_external

    if _setting(target, "max_in_flight"):
        tell(f"{BINARY} takes any number of requests at once; the run's setting max_in_flight does not count.")
    line = command(engine, service, image)
    tell(f"Starting {shlex.join(line)}")
    tell("It listens on every network interface of this machine; `--engine embedded` on the loopback address alone.")
    run_external(line, service, lambda versions: tell(announcement(service, target, versions[-1], engine)))


def service_of(target: Target, options: ServeOptions, engine: Engine = Engine.EMBEDDED) -> Service:
    """Put together what is served, and where.

    Raises:
        ServerStartError: The engine cannot do what is asked for.
    """
    if engine != Engine.EMBEDDED:
        _refuse_what_only_ours_can(options)
    setup = target.setup
    default_grpc, default_rest = (setup.port, setup.rest_port) if setup else (GRPC_PORT, REST_PORT)
    return Service(
        base_path=target.base_path,
        model_name=target.model_name,
        host=options.host,
        grpc_port=default_grpc if options.grpc_port is None else options.grpc_port,
        rest_port=default_rest if options.rest_port is None else options.rest_port,
        flags=tuple(_flags(target, options, engine)),
        gpu=options.gpu or bool(_setting(target, "serve_on_gpu")),
    )


def _flags(target: Target, options: ServeOptions, engine: Engine) -> list[str]:
    flags = []
    if options.batching_parameters_file or (options.batching and engine == Engine.EMBEDDED):
        flags.append("--enable_batching=true")
    files = {
        "batching_parameters_file": options.batching_parameters_file,
        "ssl_config_file": options.ssl_config_file,
        "auth_token_file": options.auth_token_file,
    }
    flags += [f"--{name}={file.expanduser().resolve()}" for name, file in files.items() if file]
    if options.prefer_tflite_model:
        flags.append("--prefer_tflite_model=true")
    if engine == Engine.EMBEDDED:
        flags += limit_flags({name: _limit(name, options, target) for name in LIMITS})
    return flags


def _refuse_what_only_ours_can(options: ServeOptions) -> None:
    if options.auth_token_file:
        raise ServerStartError(
            f"{BINARY} knows no tokens, so it would answer everybody. Expected no --auth-token-file, got "
            f"{options.auth_token_file}. Use `--engine embedded`, or TLS with client certificates."
        )
    for name, instead in LIMITS.items():
        if (value := getattr(options, name)) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise ServerStartError(
                f"{BINARY} has no flag for this limit: {instead}. Expected no {flag}, got {value}. "
                "Leave it away, or use `--engine embedded`."
            )


def _limit(name: str, options: ServeOptions, target: Target) -> float | None:
    chosen = getattr(options, name)
    return _setting(target, name) if chosen is None else chosen


def limit_flags(limits: Mapping[str, float | None]) -> list[str]:
    """Return the embedded engine's flags for its limits, by the names in `LIMITS`; `None` leaves one at its default."""
    return [f"--{name}={value}" for name, value in limits.items() if value is not None]


def _setting(target: Target, name: str) -> Any:
    """Return a setting of the run that is served; `None` where there is no run, or it does not say."""
    return (target.run.manifest.get("settings") or {}).get(name) if target.run else None


def _run_embedded(service: Service, target: Target, tell: Callable[[str], None]) -> None:
    if not service.gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

    from experiments_manager.serving.models.signatures import ModelRef
    from experiments_manager.serving.server.flags import parse
    from experiments_manager.serving.server.options import server_options
    from experiments_manager.serving.server.server import Server, run_server

    def ready(server: Server) -> None:
        with server.manager.lease(ModelRef(service.model_name)) as lease:
            tell(announcement(service, target, lease.version, Engine.EMBEDDED))

    options = server_options(parse(command(Engine.EMBEDDED, service)[3:]))
    tell("Loading the model …")
    import tensorflow  # noqa: F401  (here and now, not in a thread that loads: what it prints can then be kept away)

    run_server(options, on_ready=ready)


def announcement(service: Service, target: Target | None, version: int | None, engine: Engine) -> str:
    """Say what is served where, and how to ask it."""
    what = f"version {version}" if version is not None else "the first version when it is there"
    lines = [f"Serving {what} of {service.model_name} from {service.base_path} (engine {engine.value})"]
    lines += addresses(service)
    return "\n".join([*lines, f"  ask it: {example(service, target)}"])


def addresses(service: Service) -> list[str]:
    """Return where a server answers, in lines."""
    secure = any(flag.startswith("--ssl_config_file") for flag in service.flags)
    lines = [f"  gRPC    {service.grpc_address}"]
    if service.rest_port:
        lines.append(f"  REST    {'https' if secure else 'http'}://{service.url}")
    return lines


def example(service: Service, target: Target | None) -> str:
    """Return a command to try."""
    if target is not None and target.run is not None:
        words = ["experiments_manager", "predict", str(target.run.path), "--address", service.grpc_address]
        if service.model_name != find_target(target.run.path).model_name:
            words += ["--model-name", service.model_name]
        given = dict(flag.removeprefix("--").split("=", 1) for flag in service.flags)
        if "ssl_config_file" in given:
            words += ["--ssl-config-file", given["ssl_config_file"]]
        if "auth_token_file" in given:
            words += ["--auth-token-file", given["auth_token_file"]]
        return shlex.join(words)
    scheme = "https" if any(flag.startswith("--ssl_config_file") for flag in service.flags) else "http"
    return shlex.join(["curl", f"{scheme}://{service.url}/metadata"])
