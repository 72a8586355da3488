"""`experiments_manager serve`."""

from __future__ import annotations

import logging

from experiments_manager.cli import options, serve_options
from experiments_manager.common.console import warn


def serve(
    path: serve_options.Place,
    engine: serve_options.EngineChoice = serve_options.Engine.AUTO,
    image: serve_options.Image = None,
    grpc_port: serve_options.GrpcPort = None,
    rest_port: serve_options.RestPort = None,
    host: serve_options.Host = "127.0.0.1",
    model_name: serve_options.ModelName = None,
    model_version: serve_options.ModelVersion = None,
    batching: serve_options.Batching = True,
    batching_parameters_file: serve_options.BatchingParametersFile = None,
    ssl_config_file: serve_options.SslConfigFile = None,
    auth_token_file: serve_options.AuthTokenFile = None,
    max_message_bytes: serve_options.MaxMessageBytes = None,
    max_in_flight: serve_options.MaxInFlight = None,
    max_bytes_in_flight: serve_options.MaxBytesInFlight = None,
    max_connections: serve_options.MaxConnections = None,
    header_timeout_seconds: serve_options.HeaderTimeout = None,
    body_timeout_seconds: serve_options.BodyTimeout = None,
    idle_timeout_seconds: serve_options.IdleTimeout = None,
    prefer_tflite_model: serve_options.PreferTfliteModel = False,
    gpu: serve_options.Gpu = False,
    debug: options.Debug = False,
) -> None:
    """Serve the exported models of a run, also during training.

    New versions take over as training exports them, and no request is lost.
    """
    from experiments_manager import api
    from experiments_manager.cli.training_session import start_engine

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
