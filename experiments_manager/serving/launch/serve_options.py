"""What the command `serve` can be told: one table of names, types, defaults, bounds and help."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path
from typing import Any

from experiments_manager.serving.server.flag_table import FLAGS


class Engine(str, enum.Enum):
    """Which program serves the model."""

    AUTO = "auto"
    EMBEDDED = "embedded"
    TENSORFLOW_MODEL_SERVER = "tensorflow_model_server"
    APPTAINER = "apptainer"


def _option(default: Any, help: str, metavar: str | None = None, **bounds: float) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, "metavar": metavar, **bounds})


def _limit(name: str, metavar: str = "N") -> Any:
    """Declare a limit of the embedded engine, which is a setting of the run too."""
    flag = FLAGS[name].metadata
    text = f"{flag['doc'].removesuffix(' Ours alone.')} By default the run's `{name}`. Embedded engine alone."
    return _option(None, text, metavar, **{bound: flag[bound] for bound in ("min", "max") if bound in flag})


@dataclasses.dataclass(frozen=True)
class ServeOptions:
    """How to serve; see the help of each option."""

    engine: Engine = _option(
        Engine.AUTO, "auto: the image, else tensorflow_model_server on the path, else the embedded one."
    )
    image: Path | None = _option(None, "Apptainer image of TensorFlow Serving.", "FILE")
    grpc_port: int | None = _option(None, "Port for gRPC. By default the run's, else 9000.", "PORT", min=1, max=65535)
    rest_port: int | None = _option(
        None, "Port for REST, 0 for none. By default the run's, else 8501.", "PORT", min=0, max=65535
    )
    host: str = _option(
        "127.0.0.1", "Address to listen at; 0.0.0.0 for every interface. Embedded engine alone.", "HOST"
    )
    model_name: str | None = _option(None, "Name in requests. By default the run's, or the folder's.", "NAME")
    model_version: int | None = _option(
        None, "Serve this version alone. By default the newest, and what training adds.", "N", min=0
    )
    batching: bool = _option(
        True, "Let requests that come together share a call, where that is proved to change no answer."
    )
    batch_rounded: bool = _option(
        False, "Let them share a call also where that changes the last bits of answers. Embedded engine alone."
    )
    batching_parameters_file: Path | None = _option(None, "TensorFlow Serving's batching parameters.", "FILE")
    ssl_config_file: Path | None = _option(None, "TLS, as TensorFlow Serving's flag of that name.", "FILE")
    auth_token_file: Path | None = _option(
        None, "Tokens, one a line, that requests must show. Embedded engine alone.", "FILE"
    )
    max_message_bytes: int | None = _limit("max_message_bytes")
    max_in_flight: int | None = _limit("max_in_flight")
    max_bytes_in_flight: int | None = _limit("max_bytes_in_flight")
    max_connections: int | None = _limit("max_connections")
    header_timeout_seconds: float | None = _limit("header_timeout_seconds", "SECONDS")
    body_timeout_seconds: float | None = _limit("body_timeout_seconds", "SECONDS")
    idle_timeout_seconds: float | None = _limit("idle_timeout_seconds", "SECONDS")
    prefer_tflite_model: bool = _option(False, "Serve model.tflite where a version has one.")
    gpu: bool = _option(False, "Let the server use a GPU, also where the run's `serve_on_gpu` is false.")
