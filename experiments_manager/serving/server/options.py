"""From flags, and the files that they name, to the options of a server."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments_manager.protocol.errors import ServerStartError
from experiments_manager.protocol.status import ServingError
from experiments_manager.serving.models.loader import LoadingOptions
from experiments_manager.serving.models.version_policy import LabelRule
from experiments_manager.serving.server.server import ServerOptions

logger = logging.getLogger(__name__)


def server_options(values: Mapping[str, Any]) -> ServerOptions:
    """Make the server's options from flags, and read the files that they name.

    Raises:
        ServerStartError: Flags contradict each other, or a file cannot be used.
    """
    if not values["model_base_path"] and not values["model_config_file"]:
        raise ServerStartError(
            "There is nothing to serve. Expected --model_base_path=DIR or --model_config_file=FILE, got neither."
        )
    _check_ports(values)
    _check_limits(values)
    loading = LoadingOptions(
        poll_seconds=values["file_system_poll_wait_seconds"],
        max_load_retries=values["max_num_load_retries"],
        retry_seconds=values["load_retry_interval_micros"] / 1e6,
        threads=max(1, values["num_load_threads"]),
    )
    tls, tokens = _security(values)
    return ServerOptions(
        models=_models(values),
        grpc=_grpc(values, tls, tokens),
        batching=_batching(values),
        loading=loading,
        threads=_threads(values),
        max_in_flight=values["max_in_flight"],
        max_bytes_in_flight=values["max_bytes_in_flight"],
        warm_up=values["enable_model_warmup"],
        prefer_tflite=values["prefer_tflite_model"],
        read_configs=(lambda: _models(values, again=True)) if values["model_config_file"] else None,
        config_poll_seconds=values["model_config_file_poll_wait_seconds"],
        label_rule=_label_rule(values),
        tensor_content=values["enable_serialization_as_tensor_content"],
        rest=_rest(values, tls, tokens),
    )


def _check_ports(values: Mapping[str, Any]) -> None:
    for name in ("port", "rest_api_port"):
        if not 0 <= values[name] < 65536:
            raise ServerStartError(f"--{name}: Expected a number from 0 to 65535, got {values[name]}. Change it.")
    if values["port"] and values["port"] == values["rest_api_port"]:
        raise ServerStartError(
            f"--rest_api_port cannot be same as --port. Expected two, got {values['port']} twice. Change one."
        )
    if not (values["port"] or values["rest_api_port"] or values["grpc_socket_path"]):
        raise ServerStartError(
            "The server would listen nowhere. Expected --port, --rest_api_port or --grpc_socket_path."
        )


def _check_limits(values: Mapping[str, Any]) -> None:
    for name in ("max_message_bytes", "max_bytes_in_flight", "max_connections"):
        if values[name] < 1:
            raise ServerStartError(f"--{name}: Expected a number of 1 or more, got {values[name]}. Change it.")
    for name in ("header_timeout_seconds", "body_timeout_seconds", "idle_timeout_seconds"):
        if not 0 <= values[name] < float("inf"):
            raise ServerStartError(f"--{name}: Expected seconds, or 0 for any time, got {values[name]}. Change it.")


def _models(values: Mapping[str, Any], *, again: bool = False) -> list[Any]:
    from experiments_manager.protocol import messages
    from experiments_manager.protocol.text_format import parse_text_proto
    from experiments_manager.serving.models.version_policy import ModelConfig, configs_from_proto, local_folder

    if not values["model_config_file"]:
        if not values["model_name"]:
            raise ServerStartError("--model_name is empty. Expected a name for the model. Give one.")
        try:
            base_path = local_folder(values["model_base_path"]).expanduser().absolute()
        except ServingError as error:
            raise ServerStartError(f"--model_base_path: {error.message}.") from error
        except RuntimeError as error:  # there is no such user
            given = values["model_base_path"]
            raise ServerStartError(f"--model_base_path: {error} Expected a folder, got {given}.") from error
        _check_paths("--model_base_path", {values["model_name"]: base_path})
        return [ModelConfig(values["model_name"], base_path)]
    found = parse_text_proto(values["model_config_file"], messages.ModelServerConfig())
    if again and found.WhichOneof("config") is None:  # perhaps somebody is about to write it
        raise ServerStartError(f"{values['model_config_file']}: Taking no action for empty config.")
    try:
        configs = configs_from_proto(found)
    except ServingError as error:
        raise ServerStartError(f"{values['model_config_file']}: {error.message}") from error
    if not again:
        _check_paths(values["model_config_file"], {config.name: config.base_path for config in configs})
    return configs


def _check_paths(where: str, base_paths: Mapping[str, Path]) -> None:
    """Refuse at the start what can never become a folder; nobody need wait for that."""
    for name, path in base_paths.items():
        if "\0" in str(path):
            raise ServerStartError(
                f"{where}: the base path of {name} has a NUL character. Expected a folder, got {str(path)!r}. "
                "Change it."
            )


def _label_rule(values: Mapping[str, Any]) -> LabelRule:
    if values["force_allow_any_version_labels_for_unavailable_models"]:
        return LabelRule.ANY
    return LabelRule.UNUSED if values["allow_version_labels_for_unavailable_models"] else LabelRule.AVAILABLE


def _batching(values: Mapping[str, Any]) -> Any:
    from experiments_manager.protocol import messages
    from experiments_manager.protocol.text_format import parse_text_proto
    from experiments_manager.serving.batching.scheduler import BatchingOptions

    file = values["batching_parameters_file"]
    if not values["enable_batching"]:
        if file:
            raise ServerStartError("--batching_parameters_file is set without setting --enable_batching. Add it.")
        return None
    if not file:
        return BatchingOptions(split_large_batches=True)  # nobody chose the limit, so nobody need be refused by it
    try:
        return BatchingOptions.from_proto(parse_text_proto(file, messages.BatchingParameters()))
    except ServingError as error:
        raise ServerStartError(f"{file}: {error.message}") from error


def _threads(values: Mapping[str, Any]) -> Any:
    both = values["tensorflow_session_parallelism"]
    intra, inter = values["tensorflow_intra_op_parallelism"], values["tensorflow_inter_op_parallelism"]
    if both > 0 and intra > 0 and inter > 0:
        raise ServerStartError(
            "Either configure --tensorflow_session_parallelism, or --tensorflow_intra_op_parallelism and "
            "--tensorflow_inter_op_parallelism. You cannot configure all."
        )
    if not (intra or inter):
        intra = inter = both
    if not (intra or inter):
        return None
    from experiments_manager.serving.models.threads import Threads

    return Threads(intra_op=intra or 1, inter_op=inter or -1)


def _security(values: Mapping[str, Any]) -> tuple[Any, Any]:
    from experiments_manager.serving.api.security import Tokens, read_tls

    tls = read_tls(values["ssl_config_file"]) if values["ssl_config_file"] else None
    tokens = Tokens(values["auth_token_file"]) if values["auth_token_file"] else None
    if tokens and not tls and values["host"] not in ("127.0.0.1", "localhost", "::1"):
        logger.warning("Tokens travel in clear text without --ssl_config_file; anybody on the way can read them.")
    return tls, tokens


def _grpc(values: Mapping[str, Any], tls: Any, tokens: Any) -> Any:
    from experiments_manager.serving.api.grpc_server import GrpcOptions
    from experiments_manager.serving.api.security import grpc_token_interceptor

    if not values["port"] and not values["grpc_socket_path"]:
        return None
    return GrpcOptions(
        host=values["host"],
        port=values["port"] or None,
        socket_path=values["grpc_socket_path"] or None,
        max_message_bytes=values["max_message_bytes"],
        handshake_seconds=values["header_timeout_seconds"],
        idle_seconds=values["idle_timeout_seconds"],
        max_connections=values["max_connections"],
        channel_arguments=_channel_arguments(values["grpc_channel_arguments"]),
        credentials=tls.grpc_credentials() if tls else None,
        interceptors=(grpc_token_interceptor(tokens),) if tokens else (),
        profiler=values["enable_profiler"],
    )


def _channel_arguments(text: str) -> tuple[tuple[str, int | str], ...]:
    found: list[tuple[str, int | str]] = []
    for argument in filter(None, text.split(",")):
        name, equals, value = argument.partition("=")
        if not equals or not name:
            raise ServerStartError(f"--grpc_channel_arguments: Expected NAME=VALUE, got {argument!r}. Change it.")
        digits = value.strip().removeprefix("-")
        whole = digits.isascii() and digits.isdigit() and -(2**31) <= int(value) < 2**31  # gRPC has no larger ones
        found.append((name, int(value) if whole else value))
    return tuple(found)


def _rest(values: Mapping[str, Any], tls: Any, tokens: Any) -> Any:
    if not values["rest_api_port"]:
        return None
    try:
        from experiments_manager.serving.api.http.connection_limits import ConnectionLimits
        from experiments_manager.serving.api.http.rest_server import RestOptions, RestServer
    except ImportError as error:
        raise ServerStartError(
            f"REST needs {error.name}, which is not installed. Run: pip install 'experiments-manager[serving]'"
        ) from error
    options = RestOptions(
        host=values["host"],
        port=values["rest_api_port"],
        tls=tls,
        timeout_seconds=max(0, values["rest_api_timeout_in_ms"]) / 1000,
        max_body_bytes=values["max_message_bytes"],
        cors=values["rest_api_enable_cors_support"],
        metrics_path=_metrics_path(values["monitoring_config_file"]),
        connections=ConnectionLimits(
            header_seconds=values["header_timeout_seconds"],
            body_seconds=values["body_timeout_seconds"],
            idle_seconds=values["idle_timeout_seconds"],
            most=values["max_connections"],
        ),
    )
    return lambda handlers: RestServer(handlers, options, tokens)


def _metrics_path(file: str) -> str | None:
    from experiments_manager.protocol.text_format import read_text_config
    from experiments_manager.serving.api.metrics import DEFAULT_PATH

    if not file:
        return DEFAULT_PATH
    config = read_text_config(file, "MonitoringConfig").prometheus_config
    if not config.enable:
        return None
    if config.path and not config.path.startswith("/"):
        raise ServerStartError(f"{file}: path: Expected one that begins with `/`, got {config.path!r}. Change it.")
    return config.path or DEFAULT_PATH
