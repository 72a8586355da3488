"""The flags of a model server, those of `tensorflow_model_server` and our own: names, types, defaults, bounds, help."""

from __future__ import annotations

import dataclasses
from typing import Any


def _flag(default: Any, doc: str, **about: Any) -> Any:
    """Declare a flag.

    Args:
        default: Its value where it is not given; its type says what may be given.
        doc: What it does.
        **about: `min` and `max`, its bounds; `instead`, what `tensorflow_model_server` does, which has no such limit;
            `fixed`, why it takes its default alone: to ignore another value would serve something else.
    """
    return dataclasses.field(default=default, metadata={"doc": doc, **about})


@dataclasses.dataclass(frozen=True)
class ServerFlags:
    """What a server can be told, as read from its command line or made of settings; see each flag's `doc`."""

    port: int = _flag(8500, "TCP port for gRPC; 0 for none.", min=0, max=65535)
    host: str = _flag("127.0.0.1", "Address to listen at, for gRPC and REST; ours alone. 0.0.0.0 for all.")
    grpc_socket_path: str = _flag("", "Listen at this UNIX socket for gRPC too.")
    grpc_channel_arguments: str = _flag("", "Arguments for gRPC's server, NAME=VALUE,NAME=VALUE.")
    rest_api_port: int = _flag(0, "Port for REST; 0 for none.", min=0, max=65535)
    rest_api_timeout_in_ms: int = _flag(30000, "Longest time for an answer by REST.")
    rest_api_enable_cors_support: bool = _flag(False, "Let pages from other origins read answers.")
    model_name: str = _flag("default", "Name of the model, without --model_config_file.")
    model_base_path: str = _flag("", "Folder of its versions, without --model_config_file.")
    model_config_file: str = _flag("", "ModelServerConfig in text format: several models, policies, labels.")
    model_config_file_poll_wait_seconds: int = _flag(0, "Seconds between two readings of it; 0 reads it once.")
    file_system_poll_wait_seconds: int = _flag(1, "Seconds between two looks for new versions; 0 looks once.")
    enable_batching: bool = _flag(
        False, "Put requests that come together into one call, where that is proved to change no answer."
    )
    batching_parameters_file: str = _flag("", "BatchingParameters in text format.")
    batch_rounded: bool = _flag(
        False, "Put requests into one call also where that changes the last bits of answers. Ours alone."
    )
    monitoring_config_file: str = _flag("", "MonitoringConfig in text format; metrics are on without it, too.")
    ssl_config_file: str = _flag("", "SSLConfig in text format: TLS, and client certificates, for gRPC and REST.")
    auth_token_file: str = _flag("", "Tokens, one a line; requests without one are refused. Ours alone.")
    max_message_bytes: int = _flag(
        2**31 - 1,
        "Largest message, in bytes. Ours alone.",
        min=1,
        max=2**31 - 1,
        instead="it takes messages of up to 2 GiB",
    )
    max_in_flight: int = _flag(
        0,
        "Requests that are answered at once, 0 for any number. Ours alone.",
        min=0,
        instead="it queues what it cannot answer yet, up to max_enqueued_batches of --batching-parameters-file",
    )
    max_bytes_in_flight: int = _flag(
        2**31 - 1,
        "Bytes of requests that are read or answered at once; beyond, 503 or RESOURCE_EXHAUSTED. Ours alone.",
        min=1,
        instead="it reads and queues any number of bytes",
    )
    max_connections: int = _flag(
        10_000,
        "Connections by REST, and as many by gRPC. Ours alone.",
        min=1,
        instead="it takes as many connections as the system lets it",
    )
    header_timeout_seconds: float = _flag(
        10.0,
        "Longest time for the headers of a request to come; 0 for any. Ours alone.",
        min=0,
        instead="it waits for headers for any time",
    )
    body_timeout_seconds: float = _flag(
        30.0,
        "Longest time for a body to come, or to leave, at less than 16 KiB a second; 0 for any. Ours alone.",
        min=0,
        instead="it waits for bodies for any time",
    )
    idle_timeout_seconds: float = _flag(
        60.0,
        "Longest time between two requests of a connection; 0 for any. Ours alone.",
        min=0,
        instead="it keeps connections that are silent",
    )
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, "A label may name a version that does not answer yet, unless it named another one before."
    )
    force_allow_any_version_labels_for_unavailable_models: bool = _flag(False, "A label may name any version.")
    enable_serialization_as_tensor_content: bool = _flag(
        False, "Write numbers of Predict's replies to tensor_content, not to the field of their type."
    )
    prefer_tflite_model: bool = _flag(False, "Take model.tflite where a version has one (extra `lite`).")
    enable_model_warmup: bool = _flag(True, "Warm a version up before it takes over.")
    enable_profiler: bool = _flag(
        True, "Answer tensorflow.ProfilerService at the port of gRPC: traces for TensorBoard."
    )
    max_num_load_retries: int = _flag(5, "Further attempts to load a version that failed.")
    load_retry_interval_micros: int = _flag(60_000_000, "Time between two of them.")
    num_load_threads: int = _flag(0, "Versions that are loaded at the same time.")
    tensorflow_intra_op_parallelism: int = _flag(0, "Threads that share one operation; 0 chooses by the model's size.")
    tensorflow_inter_op_parallelism: int = _flag(0, "Threads that share the operations of a call; 0 chooses.")
    tensorflow_session_parallelism: int = _flag(0, "Both of them.")
    use_alts_credentials: bool = _flag(
        False,
        "No other value is accepted.",
        fixed="Without them the server would be open to all. Expected none. Use --ssl_config_file.",
    )
    saved_model_tags: str = _flag(
        "serve",
        "No other value is accepted.",
        fixed="Graphs with the tag `serve` are served, and no others. Omit the flag.",
    )
    version: bool = _flag(False, "Print the version and end.")


FLAGS = {field.name: field for field in dataclasses.fields(ServerFlags)}
LIMITS = {name: field.metadata["instead"] for name, field in FLAGS.items() if "instead" in field.metadata}
"""Flags that `tensorflow_model_server` does not have, which are settings of a run too; and what it does instead."""
IGNORED: dict[str, tuple[bool | int | float | str, str]] = {
    "rest_api_num_threads": (0, "REST is answered by the event loop"),
    "grpc_max_threads": (0, "gRPC is answered by the event loop"),
    "num_unload_threads": (0, "versions are unloaded in a thread of their own"),
    "flush_filesystem_caches": (True, "the system looks after its caches"),
    "tensorflow_session_config_file": ("", "TensorFlow's threads are set by the flags tensorflow_*_parallelism"),
    "platform_config_file": ("", "TensorFlow is the only platform"),
    "per_process_gpu_memory_fraction": (0.0, "memory of a GPU is taken as it is needed"),
    "remove_unused_fields_from_bundle_metagraph": (True, "they are removed always"),
    "num_tflite_pools": (0, "there are as many interpreters as processors"),
    "num_tflite_interpreters_per_pool": (0, "there are as many interpreters as processors"),
    "num_request_iterations_for_warmup": (0, "each warm-up request is sent once"),
    "enable_signature_method_name_check": (False, "names of methods are not checked"),
    "enable_per_model_batching_parameters": (False, "one file of batching parameters counts for all models"),
    "enable_grpc_healthcheck_service": (True, "health is served always"),
    "xla_cpu_compilation_enabled": (False, "the model itself says whether XLA compiles it"),
    "xla_gpu_compilation_enabled": (False, "the model itself says whether XLA compiles it"),
    "thread_pool_factory_config_file": ("", "TensorFlow's threads are set by the flags tensorflow_*_parallelism"),
    "mixed_precision": ("", "the model itself says in which precision it computes"),
    "skip_initialize_tpu": (False, "TPUs are not supported"),
}
"""Flags of `tensorflow_model_server` that are accepted without a meaning: their default there, and why."""
