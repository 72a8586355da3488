"""The options of `serve`."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer


class Engine(str, enum.Enum):
    """Who answers."""

    AUTO = "auto"
    EMBEDDED = "embedded"
    TENSORFLOW_MODEL_SERVER = "tensorflow_model_server"
    APPTAINER = "apptainer"


GrpcPort = Annotated[
    int | None, typer.Option(metavar="PORT", min=1, max=65535, help="Port for gRPC. By default the run's, else 9000.")
]
RestPort = Annotated[
    int | None,
    typer.Option(metavar="PORT", min=0, max=65535, help="Port for REST, 0 for none. By default the run's, else 8501."),
]
Host = Annotated[str, typer.Option(metavar="HOST", help="Address to listen at; 0.0.0.0 for every interface.")]
Place = Annotated[
    Path, typer.Argument(metavar="RUN_OR_DIR", help="A run folder, or a folder whose subfolders are versions.")
]
EngineChoice = Annotated[
    Engine, typer.Option(help="auto: the image, else tensorflow_model_server on the path, else the embedded one.")
]
Image = Annotated[Path | None, typer.Option(metavar="FILE", help="Apptainer image of TensorFlow Serving.")]
ModelName = Annotated[
    str | None, typer.Option(metavar="NAME", help="Name in requests. By default the run's, or the folder's.")
]
ModelVersion = Annotated[
    int | None,
    typer.Option(metavar="N", min=0, help="Serve this version alone. By default the newest, and what comes."),
]
Batching = Annotated[bool, typer.Option(help="Let requests that come together share a call.")]
BatchingParametersFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="TensorFlow Serving's batching parameters.")
]
SslConfigFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="TLS, as TensorFlow Serving's flag of that name.")
]
AuthTokenFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Tokens, one a line, that requests must show.")
]
MaxMessageBytes = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, max=2**31 - 1, help="Largest message. By default the run's `max_message_bytes`."),
]
MaxInFlight = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=0,
        help="Requests answered at once, 0 for any number. By default the run's `max_in_flight`.",
    ),
]
MaxBytesInFlight = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Bytes of requests read or answered at once. By default the run's `max_bytes_in_flight`.",
    ),
]
MaxConnections = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Connections at once. By default the run's `max_connections`.",
    ),
]
HeaderTimeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", min=0, help="Time for headers to come. By default the run's `header_timeout_seconds`."
    ),
]
BodyTimeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        min=0,
        help="Time for a body at less than 16 KiB a second. By default the run's `body_timeout_seconds`.",
    ),
]
IdleTimeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        min=0,
        help="Time from one request of a connection to the next. By default the run's `idle_timeout_seconds`.",
    ),
]
PreferTfliteModel = Annotated[
    bool, typer.Option("--prefer-tflite-model", help="Serve model.tflite where a version has one.")
]
Gpu = Annotated[bool, typer.Option("--gpu", help="Let the server use a GPU.")]
