"""`experiments_manager serve`."""

from __future__ import annotations

import enum
import logging
from pathlib import Path
from typing import Annotated

import typer

from experiments_manager.cli import options
from experiments_manager.cli.errors import warn

GrpcPort = Annotated[
    int | None, typer.Option(metavar="PORT", min=1, max=65535, help="Port for gRPC. By default the run's, else 9000.")
]
RestPort = Annotated[
    int | None,
    typer.Option(metavar="PORT", min=0, max=65535, help="Port for REST, 0 for none. By default the run's, else 8501."),
]
Host = Annotated[str, typer.Option(metavar="HOST", help="Address to listen at; 0.0.0.0 for every interface.")]


class Engine(str, enum.Enum):
    """Who answers."""

    AUTO = "auto"
    EMBEDDED = "embedded"
    TENSORFLOW_MODEL_SERVER = "tensorflow_model_server"
    APPTAINER = "apptainer"


def serve(
    path: Annotated[
        Path, typer.Argument(metavar="RUN_OR_DIR", help="A run folder, or a folder whose subfolders are versions.")
    ],
    engine: Annotated[
        Engine, typer.Option(help="auto: the image, else tensorflow_model_server on the path, else the embedded one.")
    ] = Engine.AUTO,
    image: Annotated[Path | None, typer.Option(metavar="FILE", help="Apptainer image of TensorFlow Serving.")] = None,
    grpc_port: GrpcPort = None,
    rest_port: RestPort = None,
    host: Host = "127.0.0.1",
    model_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name in requests. By default the run's, or the folder's.")
    ] = None,
    model_version: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Serve this version alone. By default the newest, and what comes."),
    ] = None,
    batching: Annotated[bool, typer.Option(help="Let requests that come together share a call.")] = True,
    batching_parameters_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TensorFlow Serving's batching parameters.")
    ] = None,
    ssl_config_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TLS, as TensorFlow Serving's flag of that name.")
    ] = None,
    auth_token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Tokens, one a line, that requests must show.")
    ] = None,
    max_message_bytes: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, max=2**31 - 1, help="Largest message. By default the run's `max_message_bytes`."
        ),
    ] = None,
    max_in_flight: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Requests answered at once, 0 for any number. By default the run's `max_in_flight`.",
        ),
    ] = None,
    max_bytes_in_flight: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Bytes of requests read or answered at once. By default the run's `max_bytes_in_flight`.",
        ),
    ] = None,
    max_connections: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Connections at once. By default the run's `max_connections`.",
        ),
    ] = None,
    header_timeout_seconds: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", min=0, help="Time for headers to come. By default the run's `header_timeout_seconds`."
        ),
    ] = None,
    body_timeout_seconds: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="Time for a body at less than 16 KiB a second. By default the run's `body_timeout_seconds`.",
        ),
    ] = None,
    idle_timeout_seconds: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="Time from one request of a connection to the next. By default the run's `idle_timeout_seconds`.",
        ),
    ] = None,
    prefer_tflite_model: Annotated[
        bool, typer.Option("--prefer-tflite-model", help="Serve model.tflite where a version has one.")
    ] = False,
    gpu: Annotated[bool, typer.Option("--gpu", help="Let the server use a GPU.")] = False,
    debug: options.Debug = False,
) -> None:
    """Serve the exported models of a run, also during training.

    New versions take over as training exports them, and no request is lost.
    """
    from experiments_manager import api
    from experiments_manager.cli.engine import start_engine

    start_engine(debug=debug)
    logging.getLogger("experiments_manager.serving").setLevel(logging.DEBUG if debug else logging.INFO)
    api.serve(
        path,
        engine=engine.value,
        image=image,
        model_name=model_name,
        model_version=model_version,
        host=host,
        grpc_port=grpc_port,
        rest_port=rest_port,
        batching=batching,
        batching_parameters_file=batching_parameters_file,
        ssl_config_file=ssl_config_file,
        auth_token_file=auth_token_file,
        gpu=gpu,
        max_message_bytes=max_message_bytes,
        max_in_flight=max_in_flight,
        max_bytes_in_flight=max_bytes_in_flight,
        max_connections=max_connections,
        header_timeout_seconds=header_timeout_seconds,
        body_timeout_seconds=body_timeout_seconds,
        idle_timeout_seconds=idle_timeout_seconds,
        prefer_tflite_model=prefer_tflite_model,
        tell=warn,
    )
