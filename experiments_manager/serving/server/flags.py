"""The console script `experiments-model-server`: our server with the flags of `tensorflow_model_server`."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

from experiments_manager.common.suggestions import nearest_name
from experiments_manager.protocol.errors import ServerStartError
from experiments_manager.serving.server.preflight import check_embedded, check_port
from experiments_manager.serving.server.shutdown import exit_process

if TYPE_CHECKING:
    from experiments_manager.serving.server.server import Server

logger = logging.getLogger(__name__)

BAD_INPUT = 2
_REACHED_AS_LOCALHOST = frozenset({"127.0.0.1", "0.0.0.0", "localhost", "::", "::1"})


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag.

    Attributes:
        default: Its value where it is not given; its type says what may be given.
        doc: What it does.
        ignored: Why it means nothing here, where it does not.
    """

    default: bool | int | float | str
    doc: str
    ignored: str = ""


def _no(default: bool | int | float | str, why: str) -> Flag:
    return Flag(default, "Accepted, and without meaning here.", why)


FLAGS: dict[str, Flag] = {
    "port": Flag(8500, "TCP port for gRPC; 0 for none."),
    "host": Flag("127.0.0.1", "Address to listen at, for gRPC and REST; ours alone. 0.0.0.0 for all."),
    "grpc_socket_path": Flag("", "Listen at this UNIX socket for gRPC too."),
    "grpc_channel_arguments": Flag("", "Arguments for gRPC's server, NAME=VALUE,NAME=VALUE."),
    "rest_api_port": Flag(0, "Port for REST; 0 for none."),
    "rest_api_timeout_in_ms": Flag(30000, "Longest time for an answer by REST."),
    "rest_api_enable_cors_support": Flag(False, "Let pages from other origins read answers."),
    "model_name": Flag("default", "Name of the model, without --model_config_file."),
    "model_base_path": Flag("", "Folder of its versions, without --model_config_file."),
    "model_config_file": Flag("", "ModelServerConfig in text format: several models, policies, labels."),
    "model_config_file_poll_wait_seconds": Flag(0, "Seconds between two readings of it; 0 reads it once."),
    "file_system_poll_wait_seconds": Flag(1, "Seconds between two looks for new versions; 0 looks once."),
    "enable_batching": Flag(False, "Put requests that come together into one call."),
    "batching_parameters_file": Flag("", "BatchingParameters in text format."),
    "monitoring_config_file": Flag("", "MonitoringConfig in text format; metrics are on without it, too."),
    "ssl_config_file": Flag("", "SSLConfig in text format: TLS, and client certificates, for gRPC and REST."),
    "auth_token_file": Flag("", "Tokens, one a line; who has none is refused, by gRPC and REST. Ours alone."),
    "max_message_bytes": Flag(2**31 - 1, "Largest message, in bytes. Ours alone."),
    "max_in_flight": Flag(0, "Requests that are answered at once, 0 for any number. Ours alone."),
    "max_bytes_in_flight": Flag(
        2**31 - 1, "Bytes of requests that are read or answered at once; beyond, 503 or RESOURCE_EXHAUSTED. Ours alone."
    ),
    "max_connections": Flag(10_000, "Connections by REST, and as many by gRPC. Ours alone."),
    "header_timeout_seconds": Flag(10.0, "Longest time for the headers of a request to come; 0 for any. Ours alone."),
    "body_timeout_seconds": Flag(
        30.0, "Longest time for a body to come, or to leave, at less than 16 KiB a second; 0 for any. Ours alone."
    ),
    "idle_timeout_seconds": Flag(60.0, "Longest time between two requests of a connection; 0 for any. Ours alone."),
    "allow_version_labels_for_unavailable_models": Flag(
        False, "A label may name a version that does not answer yet, unless it named another one before."
    ),
    "force_allow_any_version_labels_for_unavailable_models": Flag(False, "A label may name any version."),
    "enable_serialization_as_tensor_content": Flag(
        False, "Write numbers of Predict's replies to tensor_content, not to the field of their type."
    ),
    "prefer_tflite_model": Flag(False, "Take model.tflite where a version has one (extra `lite`)."),
    "enable_model_warmup": Flag(True, "Warm a version up before it takes over."),
    "enable_profiler": Flag(True, "Answer tensorflow.ProfilerService at the port of gRPC: traces for TensorBoard."),
    "max_num_load_retries": Flag(5, "Further attempts to load a version that failed."),
    "load_retry_interval_micros": Flag(60_000_000, "Time between two of them."),
    "num_load_threads": Flag(0, "Versions that are loaded at the same time."),
    "tensorflow_intra_op_parallelism": Flag(0, "Threads that share one operation; 0 chooses by the model's size."),
    "tensorflow_inter_op_parallelism": Flag(0, "Threads that share the operations of a call; 0 chooses."),
    "tensorflow_session_parallelism": Flag(0, "Both of them."),
    "use_alts_credentials": Flag(False, "No other value is accepted."),
    "saved_model_tags": Flag("serve", "No other value is accepted."),
    "version": Flag(False, "Print the version and end."),
    "rest_api_num_threads": _no(0, "REST is answered by the event loop"),
    "grpc_max_threads": _no(0, "gRPC is answered by the event loop"),
    "num_unload_threads": _no(0, "versions are unloaded in a thread of their own"),
    "flush_filesystem_caches": _no(True, "the system looks after its caches"),
    "tensorflow_session_config_file": _no("", "TensorFlow's threads are set by the flags tensorflow_*_parallelism"),
    "platform_config_file": _no("", "there is one platform, TensorFlow"),
    "per_process_gpu_memory_fraction": _no(0.0, "memory of a GPU is taken as it is needed"),
    "remove_unused_fields_from_bundle_metagraph": _no(True, "they are removed always"),
    "num_tflite_pools": _no(0, "there are as many interpreters as processors"),
    "num_tflite_interpreters_per_pool": _no(0, "there are as many interpreters as processors"),
    "num_request_iterations_for_warmup": _no(0, "each warm-up request is sent once"),
    "enable_signature_method_name_check": _no(False, "names of methods are not checked"),
    "enable_per_model_batching_parameters": _no(False, "one file of batching parameters counts for all models"),
    "enable_grpc_healthcheck_service": _no(True, "health is served always"),
    "xla_cpu_compilation_enabled": _no(False, "the model itself says whether XLA compiles it"),
    "xla_gpu_compilation_enabled": _no(False, "the model itself says whether XLA compiles it"),
    "thread_pool_factory_config_file": _no("", "TensorFlow's threads are set by the flags tensorflow_*_parallelism"),
    "mixed_precision": _no("", "the model itself says in which precision it computes"),
    "skip_initialize_tpu": _no(False, "there is no TPU"),
}
_FIXED = {
    "use_alts_credentials": "Without them the server would be open to all. Expected none. Use --ssl_config_file.",
    "saved_model_tags": "Graphs with the tag `serve` are served, and no others. Leave the flag away.",
}
"""Flags that take their default alone, because to ignore another value would serve something else; and why."""


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """Read a command line: `--flag=value`, `--flag value`, and `--flag` alone where it is true or false.

    Args:
        arguments: What follows the program's name.

    Returns:
        All flags by name, those that were not given with their defaults.

    Raises:
        ServerStartError: A flag is unknown (the nearest known one is named), or its value is none.
    """
    values = {name: flag.default for name, flag in FLAGS.items()}
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        name, equals, text = argument.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if not argument.startswith("--") or name not in FLAGS:
            raise _unknown(argument)
        flag = FLAGS[name]
        if not equals:
            if isinstance(flag.default, bool):
                text = "true"
            elif waiting and not waiting[0].startswith("--"):
                text = waiting.pop(0)
            else:
                raise ServerStartError(f"--{name} has no value. Expected --{name}={_kind(flag.default)}.")
        values[name] = _value(name, flag.default, text)
        if name in _FIXED and values[name] != flag.default:
            raise ServerStartError(f"--{name}={text} is not supported. {_FIXED[name]}")
        if flag.ignored:
            logger.warning("--%s has no meaning here: %s.", name, flag.ignored)
    return values


def _unknown(argument: str) -> ServerStartError:
    name = argument.lstrip("-").partition("=")[0].replace("-", "_")
    near = name if name in FLAGS else nearest_name(name, FLAGS)
    hint = f"Did you mean --{near}?" if near else "`experiments-model-server --help` lists all flags."
    return ServerStartError(f"unknown argument: {argument}. {hint}")


def _value(name: str, default: bool | int | float | str, text: str) -> bool | int | float | str:
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        return type(default)(text)
    except (ValueError, KeyError) as error:
        raise ServerStartError(f"--{name}: Expected {_kind(default)}, got {text!r}. Change it.") from error


def _kind(default: bool | int | float | str) -> str:
    return {bool: "true or false", int: "a whole number", float: "a number", str: "TEXT"}[type(default)]


def usage() -> str:
    """Return all flags with what they do."""
    lines = [
        "usage: experiments-model-server --model_base_path=DIR [--port=8500] [--rest_api_port=8501] …",
        "",
        "Flags:",
    ]
    for name, flag in FLAGS.items():
        default = str(flag.default).lower() if isinstance(flag.default, bool) else repr(flag.default)
        lines.append(
            f"    --{name}={default}\n        {flag.ignored and flag.doc[:-1] + ': ' + flag.ignored + '.' or flag.doc}"
        )
    return "\n".join(lines)


def versions() -> str:
    """Return what `--version` prints; without importing TensorFlow."""
    from experiments_manager.common.version import __version__

    tensorflow = metadata.version("tensorflow")
    return f"TensorFlow ModelServer: experiments-manager {__version__}\nTensorFlow Library: {tensorflow}"


def run(arguments: Sequence[str]) -> int:
    """Run a server until it is told to end.

    Args:
        arguments: Its flags.

    Returns:
        The exit code: 0, or 2 where it cannot be started as it was asked for.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname).1s %(message)s")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if any(argument in ("--help", "-h") for argument in arguments):
        sys.stdout.write(f"{usage()}\n")
        return 0
    try:
        values = parse(arguments)
        if values["version"]:
            sys.stdout.write(f"{versions()}\n")
            return 0

        check_embedded()

        from experiments_manager.serving.server.options import server_options
        from experiments_manager.serving.server.server import run_server

        options = server_options(values)
        for name in ("port", "rest_api_port"):  # now, and not when all models are loaded
            if values[name]:
                check_port(values["host"], values[name], f"--{name}")
        run_server(options, on_ready=functools.partial(_announce, values), on_waiting=_tell_waiting)
    except ServerStartError as error:
        logger.error("Failed to start server. %s", error)
        return BAD_INPUT
    return 0


def _announce(values: Mapping[str, Any], server: Server) -> None:
    """Say that the server answers, in the words of `tensorflow_model_server`, which scripts wait for."""
    if server.grpc is not None and server.grpc.port is not None:
        logger.info("Running gRPC ModelServer at %s:%s ...", values["host"], server.grpc.port)
    if values["grpc_socket_path"]:
        logger.info("Running gRPC ModelServer at UNIX socket %s ...", values["grpc_socket_path"])
    if server.rest is not None:
        host = "localhost" if values["host"] in _REACHED_AS_LOCALHOST else values["host"]
        logger.info("Exporting HTTP/REST API at:%s:%s ...", host, server.rest.port)
        logger.info("Entering the event loop ...")


def _tell_waiting(problems: Mapping[str, str]) -> None:
    for name, problem in problems.items():
        logger.info("Waiting for %s: %s", name, problem)


def main() -> None:
    """Return the console script."""
    code = run(sys.argv[1:])
    exit_process(code)  # gRPC's thread lives to the end, and may abort the process while Python takes itself down


if __name__ == "__main__":
    main()
