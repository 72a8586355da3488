"""Serving a run, or any folder of versions, by whichever engine: what the command `serve` does."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments_manager.common.console import command_line
from experiments_manager.export.model_folders import ServingTarget, find_target, versions_in, wait_for_version
from experiments_manager.protocol.errors import ServerStartError
from experiments_manager.serving.launch.engines import (
    BINARY,
    Service,
    check_ports,
    choose_engine,
    command,
    write_config,
)
from experiments_manager.serving.launch.serve_options import Engine, ServeOptions
from experiments_manager.serving.server.flag_table import LIMITS, ServerFlags

logger = logging.getLogger(__name__)

GRPC_PORT, REST_PORT = 9000, 8501


def serve(path: Path | str, options: ServeOptions | None = None, tell: Callable[[str], None] = logger.info) -> None:
    """Serve until SIGINT or SIGTERM; new versions take over as they appear.

    Args:
        path: A run folder, its `exported_models`, or any folder whose subfolders are versions.
        options: How to serve.
        tell: Called with each sentence that a person may want to read.

    Raises:
        ServerStartError: Nothing to serve, now or later; a port is taken, or the engine is missing.
        RunError: The run folder is damaged.
    """
    options = options or ServeOptions()
    target = find_target(path, options.model_name)
    engine = choose_engine(options.engine, options.image)
    service = service_of(target, options, engine)
    check_ports(service.flags, host=None if engine == Engine.EMBEDDED else "")
    if wait_for_version(target, tell) is None:
        return
    with contextlib.ExitStack() as stack:
        if options.model_version is not None:
            service = of_one_version(service, engine, options.model_version, stack)
        if engine == Engine.EMBEDDED:
            _run_embedded(service, target, tell)
        else:
            _run_external(service, target, engine, options.image, tell)


def of_one_version(service: Service, engine: Engine, version: int, stack: contextlib.ExitStack) -> Service:
    """Return the same service, of one version alone; the stack removes its configuration.

    Raises:
        ServerStartError: There is no such version.
    """
    base_path = Path(service.flags.model_base_path)
    there = versions_in(base_path)
    if version not in there:
        raise ServerStartError(
            f"Version {version} not found in {base_path}. Expected {', '.join(map(str, there))}. Name one of these, "
            "or none for the newest."
        )
    file = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="experiments_manager_"))) / "models.config"
    write_config(file, engine, service, version)
    return dataclasses.replace(service, flags=dataclasses.replace(service.flags, model_config_file=str(file)))


def _run_external(
    service: Service, target: ServingTarget, engine: Engine, image: Path | None, tell: Callable[[str], None]
) -> None:
    from experiments_manager.serving.launch.external_process import run_external

    if _setting(target, "max_in_flight"):
        tell(f"{BINARY} takes any number of requests at once; the run's setting max_in_flight does not count.")
    line = command(engine, service, image)
    tell(f"Starting {shlex.join(line)}")
    tell("It listens on every network interface of this machine; `--engine embedded` on the loopback address alone.")
    run_external(line, service, lambda versions: tell(announcement(service, target, versions[-1], engine)))


def _run_embedded(service: Service, target: ServingTarget, tell: Callable[[str], None]) -> None:
    if not service.gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

    from experiments_manager.serving.models.signatures import ModelRef
    from experiments_manager.serving.server.options import server_options
    from experiments_manager.serving.server.server import Server, run_server

    def ready(server: Server) -> None:
        with server.manager.lease(ModelRef(service.flags.model_name)) as lease:
            tell(announcement(service, target, lease.version, Engine.EMBEDDED))

    options = server_options(service.flags)
    tell("Loading the model …")
    import tensorflow  # noqa: F401  (here and now, not in a thread that loads: what it prints can then be kept away)

    run_server(options, on_ready=ready)


def service_of(target: ServingTarget, options: ServeOptions, engine: Engine = Engine.EMBEDDED) -> Service:
    """Put together what is served, and where: from the options, else from the run, else from defaults.

    Raises:
        ServerStartError: The engine cannot do what is asked for.
    """
    is_embedded = engine == Engine.EMBEDDED
    if not is_embedded:
        _refuse_options_of_embedded(options)
    setup = target.setup
    default_grpc, default_rest = (setup.port, setup.rest_port) if setup else (GRPC_PORT, REST_PORT)
    limits = {name: _limit(name, options, target) for name in LIMITS} if is_embedded else {}
    flags = ServerFlags(
        port=default_grpc if options.grpc_port is None else options.grpc_port,
        host=options.host,
        rest_api_port=default_rest if options.rest_port is None else options.rest_port,
        model_name=target.model_name,
        model_base_path=str(target.base_path),
        enable_batching=options.batching_parameters_file is not None or (options.batching and is_embedded),
        batching_parameters_file=_path(options.batching_parameters_file),
        batch_rounded=options.batch_rounded,
        ssl_config_file=_path(options.ssl_config_file),
        auth_token_file=_path(options.auth_token_file),
        prefer_tflite_model=options.prefer_tflite_model,
        **{name: value for name, value in limits.items() if value is not None},
    )
    return Service(flags, gpu=options.gpu or bool(_setting(target, "serve_on_gpu")))


def _path(file: Path | None) -> str:
    return str(file.expanduser().resolve()) if file else ""


def _refuse_options_of_embedded(options: ServeOptions) -> None:
    if options.auth_token_file:
        raise ServerStartError(
            f"{BINARY} does not support tokens, so it would answer requests without one. Expected no "
            f"--auth-token-file, got {options.auth_token_file}. Use `--engine embedded`, or client certificates."
        )
    if options.batch_rounded:
        raise ServerStartError(
            f"{BINARY} asks for no proof before requests share calls. Expected no --batch-rounded, got it. Omit it "
            "and give --batching-parameters-file; or use `--engine embedded`."
        )
    for name, instead in LIMITS.items():
        if (value := getattr(options, name)) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise ServerStartError(
                f"{BINARY} has no flag for this limit: {instead}. Expected no {flag}, got {value}. "
                "Omit it, or use `--engine embedded`."
            )


def _limit(name: str, options: ServeOptions, target: ServingTarget) -> float | None:
    chosen = getattr(options, name)
    return _setting(target, name) if chosen is None else chosen


def _setting(target: ServingTarget, name: str) -> Any:
    """Return a setting of the run that is served; `None` without a run, or where it does not say."""
    return (target.run.manifest.get("settings") or {}).get(name) if target.run else None


def announcement(service: Service, target: ServingTarget, version: int, engine: Engine) -> str:
    """Return what is served where, and a request to try."""
    flags = service.flags
    what = f"Serving version {version} of {flags.model_name} from {flags.model_base_path} (engine {engine.value})"
    return "\n".join([what, *addresses(service), f"  ask it: {example(service, target)}"])


def addresses(service: Service) -> list[str]:
    """Return where a server answers, in lines."""
    rest = [f"  REST    {_rest_address(service)}"] if service.flags.rest_api_port else []
    return [f"  gRPC    {service.grpc_address}", *rest]


def _rest_address(service: Service) -> str:
    return f"{'https' if service.flags.ssl_config_file else 'http'}://{service.url}"


def example(service: Service, target: ServingTarget) -> str:
    """Return a command to try."""
    flags = service.flags
    if target.run is None:
        return shlex.join(["curl", f"{_rest_address(service)}/metadata"])
    words = ["predict", str(target.run.path), "--address", service.grpc_address]
    if flags.model_name != find_target(target.run.path).model_name:
        words += ["--model-name", flags.model_name]
    if flags.ssl_config_file:
        words += ["--ssl-config-file", flags.ssl_config_file]
    if flags.auth_token_file:
        words += ["--auth-token-file", flags.auth_token_file]
    return command_line(*words)
