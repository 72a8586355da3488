"""The options of a server, made from its flags and the files that they name."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments_manager.protocol import messages
from experiments_manager.protocol.errors import ServerStartError
from experiments_manager.protocol.status import ServingError
from experiments_manager.protocol.text_format import parse_text_proto, read_text_config
from experiments_manager.serving.api.grpc_server import GrpcOptions
from experiments_manager.serving.api.metrics import DEFAULT_PATH
from experiments_manager.serving.api.security import Tokens, grpc_token_interceptor, read_tls
from experiments_manager.serving.api.services import Handlers
from experiments_manager.serving.batching.options import BatchingOptions, Proof
from experiments_manager.serving.models.loader import LoadingOptions
from experiments_manager.serving.models.threads import Threads
from experiments_manager.serving.models.version_policy import LabelRule, ModelConfig, configs_from_proto, local_folder
from experiments_manager.serving.server.flag_table import FLAGS, ServerFlags

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """The options of a server, with the files that its flags name read.

    Attributes:
        models: What to serve.
        grpc: Where to listen for gRPC; `None` for nowhere.
        batching: How to batch; `None` runs each request by itself.
        loading: How to look for versions and load them.
        threads: TensorFlow's threads; `None` chooses by the size of the models.
        max_in_flight: Requests that are answered at the same time, 0 for any number.
        warm_up: Whether a version is warmed up before it takes over.
        prefer_tflite: Whether `model.tflite` is taken where a version has one.
        read_configs: Reads the models again, for a configuration file that is polled.
        config_poll_seconds: Seconds between two such readings; 0 for none.
        label_rule: Which versions a label may name.
        tensor_content: Whether replies to Predict hold numbers in `tensor_content`, and not in the field of their type.
        max_bytes_in_flight: Bytes of requests that are read or answered at the same time.
        rest: Makes the REST server from the handlers; see `rest_server.RestServer`.
        grace_seconds: How long requests in flight may go on after a signal to end.
    """

    models: Sequence[ModelConfig]
    grpc: GrpcOptions | None = GrpcOptions()
    batching: BatchingOptions | None = None
    loading: LoadingOptions = LoadingOptions()
    threads: Threads | None = None
    max_in_flight: int = 0
    warm_up: bool = True
    prefer_tflite: bool = False
    read_configs: Callable[[], Sequence[ModelConfig]] | None = None
    config_poll_seconds: float = 0.0
    label_rule: LabelRule = LabelRule.AVAILABLE
    tensor_content: bool = False
    max_bytes_in_flight: int = (1 << 31) - 1
    rest: Callable[[Handlers], Any] | None = None
    grace_seconds: float = 10.0


def server_options(flags: ServerFlags) -> ServerOptions:
    """Make the server's options from flags, and read the files that they name.

    Raises:
        ServerStartError: Flags contradict each other, or a file cannot be used.
    """
    if not flags.model_base_path and not flags.model_config_file:
        raise ServerStartError(
            "Nothing to serve. Expected --model_base_path=DIR or --model_config_file=FILE, got neither."
        )
    _check(flags)
    loading = LoadingOptions(
        poll_seconds=flags.file_system_poll_wait_seconds,
        max_load_retries=flags.max_num_load_retries,
        retry_seconds=flags.load_retry_interval_micros / 1e6,
        threads=max(1, flags.num_load_threads),
    )
    tls, tokens = _security(flags)
    return ServerOptions(
        models=_models(flags),
        grpc=_grpc(flags, tls, tokens),
        batching=_batching(flags),
        loading=loading,
        threads=_threads(flags),
        max_in_flight=flags.max_in_flight,
        max_bytes_in_flight=flags.max_bytes_in_flight,
        warm_up=flags.enable_model_warmup,
        prefer_tflite=flags.prefer_tflite_model,
        read_configs=(lambda: _models(flags, again=True)) if flags.model_config_file else None,
        config_poll_seconds=flags.model_config_file_poll_wait_seconds,
        label_rule=_label_rule(flags),
        tensor_content=flags.enable_serialization_as_tensor_content,
        rest=_rest(flags, tls, tokens),
    )


def _check(flags: ServerFlags) -> None:
    for name, field in FLAGS.items():
        if "min" not in field.metadata:
            continue
        least, most, value = field.metadata["min"], field.metadata.get("max"), getattr(flags, name)
        if not least <= value <= (sys.float_info.max if most is None else most):  # which NaN and infinity fail
            bounds = f"of {least} or more" if most is None else f"from {least} to {most}"
            raise ServerStartError(f"--{name}: Expected a number {bounds}, got {value}. Change it.")
    if flags.port and flags.port == flags.rest_api_port:
        raise ServerStartError(
            f"--rest_api_port cannot be same as --port. Expected two, got {flags.port} twice. Change one."
        )
    if not (flags.port or flags.rest_api_port or flags.grpc_socket_path):
        raise ServerStartError("No address to listen on. Expected --port, --rest_api_port or --grpc_socket_path.")


def _models(flags: ServerFlags, *, again: bool = False) -> list[ModelConfig]:
    if not flags.model_config_file:
        if not flags.model_name:
            raise ServerStartError("--model_name is empty. Expected a name for the model. Give one.")
        try:
            base_path = local_folder(flags.model_base_path).expanduser().absolute()
        except ServingError as error:
            raise ServerStartError(f"--model_base_path: {error.message}.") from error
        except RuntimeError as error:  # the user is unknown
            given = flags.model_base_path
            raise ServerStartError(f"--model_base_path: {error} Expected a folder, got {given}.") from error
        _check_paths("--model_base_path", {flags.model_name: base_path})
        return [ModelConfig(flags.model_name, base_path)]
    found = parse_text_proto(flags.model_config_file, messages.ModelServerConfig())
    if again and found.WhichOneof("config") is None:  # perhaps it is about to be written
        raise ServerStartError(f"{flags.model_config_file}: Taking no action for empty config.")
    try:
        configs = configs_from_proto(found)
    except ServingError as error:
        raise ServerStartError(f"{flags.model_config_file}: {error.message}") from error
    if not again:
        _check_paths(flags.model_config_file, {config.name: config.base_path for config in configs})
    return configs


def _check_paths(where: str, base_paths: Mapping[str, Path]) -> None:
    """Refuse at the start what can never become a folder."""
    for name, path in base_paths.items():
        if "\0" in str(path):
            raise ServerStartError(
                f"{where}: the base path of {name} has a NUL character. Expected a folder, got {str(path)!r}. "
                "Change it."
            )


def _label_rule(flags: ServerFlags) -> LabelRule:
    if flags.force_allow_any_version_labels_for_unavailable_models:
        return LabelRule.ANY
    return LabelRule.UNUSED if flags.allow_version_labels_for_unavailable_models else LabelRule.AVAILABLE


def _batching(flags: ServerFlags) -> BatchingOptions | None:
    file = flags.batching_parameters_file
    if not flags.enable_batching:
        if file:
            raise ServerStartError("--batching_parameters_file is set without setting --enable_batching. Add it.")
        return None
    if not file:  # a limit that was not chosen refuses no request
        return BatchingOptions(split_large_batches=True, proof=Proof.ROUNDED if flags.batch_rounded else Proof.EXACT)
    try:
        return BatchingOptions.from_proto(parse_text_proto(file, messages.BatchingParameters()))
    except ServingError as error:
        raise ServerStartError(f"{file}: {error.message}") from error


def _threads(flags: ServerFlags) -> Threads | None:
    both = flags.tensorflow_session_parallelism
    intra, inter = flags.tensorflow_intra_op_parallelism, flags.tensorflow_inter_op_parallelism
    if both > 0 and intra > 0 and inter > 0:
        raise ServerStartError(
            "Either configure --tensorflow_session_parallelism, or --tensorflow_intra_op_parallelism and "
            "--tensorflow_inter_op_parallelism. You cannot configure all."
        )
    if not (intra or inter):
        intra = inter = both
    if not (intra or inter):
        return None
    return Threads(intra_op=intra or 1, inter_op=inter or -1)


def _security(flags: ServerFlags) -> tuple[Any, Tokens | None]:
    tls = read_tls(flags.ssl_config_file) if flags.ssl_config_file else None
    tokens = Tokens(flags.auth_token_file) if flags.auth_token_file else None
    if tokens and not tls and flags.host not in ("127.0.0.1", "localhost", "::1"):
        logger.warning("Tokens travel in clear text without --ssl_config_file; anyone on the network can read them.")
    return tls, tokens


def _grpc(flags: ServerFlags, tls: Any, tokens: Tokens | None) -> GrpcOptions | None:
    if not flags.port and not flags.grpc_socket_path:
        return None
    return GrpcOptions(
        host=flags.host,
        port=flags.port or None,
        socket_path=flags.grpc_socket_path or None,
        max_message_bytes=flags.max_message_bytes,
        handshake_seconds=flags.header_timeout_seconds,
        idle_seconds=flags.idle_timeout_seconds,
        max_connections=flags.max_connections,
        channel_arguments=_channel_arguments(flags.grpc_channel_arguments),
        credentials=tls.grpc_credentials() if tls else None,
        interceptors=(grpc_token_interceptor(tokens),) if tokens else (),
        profiler=flags.enable_profiler,
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


def _rest(flags: ServerFlags, tls: Any, tokens: Tokens | None) -> Any:
    if not flags.rest_api_port:
        return None
    from experiments_manager.serving.api.http.connection_limits import ConnectionLimits
    from experiments_manager.serving.api.http.rest_server import RestOptions, RestServer

    options = RestOptions(
        host=flags.host,
        port=flags.rest_api_port,
        tls=tls,
        timeout_seconds=max(0, flags.rest_api_timeout_in_ms) / 1000,
        max_body_bytes=flags.max_message_bytes,
        cors=flags.rest_api_enable_cors_support,
        metrics_path=_metrics_path(flags.monitoring_config_file),
        connections=ConnectionLimits(
            header_seconds=flags.header_timeout_seconds,
            body_seconds=flags.body_timeout_seconds,
            idle_seconds=flags.idle_timeout_seconds,
            most=flags.max_connections,
        ),
    )
    return lambda handlers: RestServer(handlers, options, tokens)


def _metrics_path(file: str) -> str | None:
    if not file:
        return DEFAULT_PATH
    config = read_text_config(file, "MonitoringConfig").prometheus_config
    if not config.enable:
        return None
    if config.path and not config.path.startswith("/"):
        raise ServerStartError(f"{file}: path: Expected one that begins with `/`, got {config.path!r}. Change it.")
    return config.path or DEFAULT_PATH
