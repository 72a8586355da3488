"""`experiments_manager predict`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments_manager.cli import options
from experiments_manager.cli.commands.kafka import options as of_kafka
from experiments_manager.client.topic_options import topic_of
from experiments_manager.common.console import command_line, warn
from experiments_manager.common.errors import CommandLineError

if TYPE_CHECKING:
    from experiments_manager.client.endpoint import Endpoint
    from experiments_manager.client.stream_progress import Summary

RunFolder = Annotated[
    Path | None,
    typer.Argument(metavar="RUN", help="A run folder. Not needed where --address and --model-name are given."),
]
Count = Annotated[int | None, typer.Option(min=1, metavar="N", help="Send so many requests.")]
Stream = Annotated[bool, typer.Option("--stream", help="Send requests until there are no more (the default).")]
Address = Annotated[
    str | None, typer.Option(metavar="HOST:PORT", help="The server's gRPC address. By default the run's.")
]
InFlight = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Requests without an answer at a time. By default 16.")
]
Rate = Annotated[float | None, typer.Option(metavar="HZ", help="Requests a second at most.")]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "--to",
        metavar="FILE|-|kafka:TOPIC",
        help="A .csv or .npz file, - for a table on standard output, or a Kafka topic. By default both files, in a new "
        "folder predictions_<time> of the run.",
    ),
]
Source = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="PATH|-|camera:N|kafka:TOPIC",
        help="What to send: an image, .npy, .npz, .csv or video file, a folder of these, a camera, the records of a "
        "Kafka topic as they come, or standard input (CSV, a JSON value a line, or .npy). By default "
        "the settings' client or the validation data.",
    ),
]
Scale = Annotated[
    float | None,
    typer.Option(
        help="What pixel values of --from are multiplied by. By default 1/255 where images go to inputs of floating "
        "point; arrays and tables are sent as they are."
    ),
]
ModelVersion = Annotated[
    str | None, typer.Option(metavar="V", help="Number or label of the version. By default the newest.")
]
ModelName = Annotated[str | None, typer.Option(metavar="NAME", help="Name of the model. By default the run's.")]
Timeout = Annotated[
    float | None, typer.Option(min=0, metavar="SECONDS", help="Time for one answer. By default `request_timeout`.")
]
Wait = Annotated[
    float | None,
    typer.Option(min=0, metavar="SECONDS", help="How long the server may be away. By default `wait_for_server`."),
]
SslConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--ssl-config-file",
        "--ssl_config_file",
        metavar="FILE",
        help="TLS: the certificates to trust as PEM, or a file such as the server's.",
    ),
]
Watch = Annotated[
    bool,
    typer.Option(
        "--watch",
        help="Send the first sample again and again, and print a line whenever another version of the model answers: "
        "time, version, value. Ends with Ctrl-C, or when the training has ended and its server with it.",
    ),
]
Interval = Annotated[
    float | None, typer.Option(metavar="SECONDS", help="With --watch: from one request to the next. By default 1.")
]
AuthTokenFile = Annotated[Path | None, typer.Option(metavar="FILE", help="File whose first line is the token to show.")]


def predict(
    run: RunFolder = None,
    count: Count = None,
    stream: Stream = False,
    address: Address = None,
    in_flight: InFlight = None,
    rate: Rate = None,
    output: Output = None,
    source: Source = None,
    scale: Scale = None,
    model_version: ModelVersion = None,
    model_name: ModelName = None,
    timeout: Timeout = None,
    wait: Wait = None,
    ssl_config_file: SslConfigFile = None,
    auth_token_file: AuthTokenFile = None,
    watch: Watch = False,
    interval: Interval = None,
    servers: of_kafka.TopicServers = None,
    kafka_option: of_kafka.KafkaOption = [],  # noqa: B006  (typer copies it)
    group: of_kafka.Group = None,
    instance: of_kafka.Instance = None,
    batch_size: of_kafka.BatchSize = None,
    idle_timeout: of_kafka.IdleTimeout = None,
    max_bad: of_kafka.MaxBad = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Ask the model server of a run, once or in a stream.

    What is asked comes from the settings' `client`, from the validation data, or from --from. A server that is
    restarted meanwhile costs no sample. With --from and --to kafka:TOPIC, each record of a topic gets one answer, also
    when this command is killed and started again.
    """
    _check(count=count, stream=stream, rate=rate, output=output, json=json, source=source, scale=scale)
    _check_watch(watch, interval, count=count, stream=stream, rate=rate, output=output, source=source)
    of_topics = {"group": group, "instance": instance, "batch_size": batch_size, "idle_timeout": idle_timeout}
    of_topics["max_bad"] = max_bad
    of_kafka.check_topic_options(source, output, scale, {"servers": servers, "kafka_option": kafka_option, **of_topics})

    from experiments_manager.cli.own_server import STARTING_SECONDS, needs_own_server, own_server
    from experiments_manager.cli.prediction_plan import PredictionPlan
    from experiments_manager.cli.results import ResultLine
    from experiments_manager.client.client import Client

    line = ResultLine() if json and not watch else None
    endpoint = _endpoint(run, address, model_name)
    given = {"timeout": timeout, "patience": wait, "version": _version(model_version)}
    given |= {"tls": ssl_config_file, "token_file": auth_token_file}
    chosen = endpoint.client_options() | {name: value for name, value in given.items() if value is not None}
    if watch:
        from experiments_manager.cli.version_watch import watch_versions

        with _with_command(run), Client(**chosen | {"patience": 0.0}) as client, _until_closed():
            watch_versions(
                client, endpoint, run, source, scale, interval=interval, wait=wait, json=json, quiet=quiet, debug=debug
            )
        return
    topics = of_kafka.topic_options(endpoint, servers, kafka_option, count=count, **of_topics)
    with contextlib.ExitStack() as stack:
        has_server = wait is not None or any([address, ssl_config_file, auth_token_file, topic_of(source or "")])
        if run is not None and not has_server and needs_own_server(run, endpoint):
            server = own_server(run, endpoint.model, chosen.get("version"), quiet=quiet)
            chosen["patience"] = max(chosen["patience"], STARTING_SECONDS)
            chosen["address"] = stack.enter_context(server)
        stack.enter_context(_with_command(run))
        plan = stack.enter_context(PredictionPlan(Client(**chosen), endpoint, output, topics, debug=debug))
        plan.prepare(source, scale)
        summary = None
        with _until_closed():
            summary = plan.predict(count=count, in_flight=in_flight, rate=rate, quiet=quiet)
    if summary is None:
        return
    if not quiet:
        warn("\n".join([str(summary), *(f"Predictions in {place}" for place in plan.places)]))
    if line:
        line.write(_result(endpoint, summary, plan.files) | plan.counts)


@contextlib.contextmanager
def _until_closed() -> Iterator[None]:
    """End the block where standard output is closed: `head` has its lines, the user has what was asked for."""
    from experiments_manager.client.errors import OutputClosedError

    try:
        yield
    except OutputClosedError:
        _leave_standard_output()


@contextlib.contextmanager
def _with_command(run: Path | None) -> Iterator[None]:
    """Name the run in what is said of a server that is not there."""
    from experiments_manager.client.errors import ServerGoneError
    from experiments_manager.client.faults import START

    try:
        yield
    except ServerGoneError as error:
        if run is None or START not in str(error):
            raise
        start = f"Start one: {command_line('serve', str(run))}"
        raise ServerGoneError(str(error).replace(START, start), error.code) from error


def _check(
    *,
    count: int | None,
    stream: bool,
    rate: float | None,
    output: str | None,
    json: bool,
    source: str | None,
    scale: float | None,
) -> None:
    """Refuse options that do not go together, and files that could be neither read nor written, before all else."""
    if count is not None and stream:
        raise CommandLineError("--count and --stream exclude each other. Expected one of them.")
    if rate is not None and not rate > 0:
        raise CommandLineError(f"--rate is {rate:g}. Expected more than 0 requests a second.")
    if json and output == "-":
        raise CommandLineError("--json and --output - both want standard output. Expected one of them.")
    if scale is not None and source is None:
        raise CommandLineError("--scale is for what --from reads. Expected --from PATH with it.")
    if source is not None and topic_of(source) is None:
        from experiments_manager.client.inputs.sources import check_source

        check_source(source)
    if output is not None and topic_of(output) is None:
        from experiments_manager.client.outputs.writer import check_output

        check_output(output)
        if source is not None and _is_same_file(source, output):
            raise CommandLineError(
                f"--from and --output are the same file, which would be lost: {output}. Expected another --output."
            )


def _check_watch(
    watch: bool,
    interval: float | None,
    *,
    count: int | None,
    stream: bool,
    rate: float | None,
    output: str | None,
    source: str | None,
) -> None:
    """Refuse what does not go together with --watch, which sends one sample and keeps no answers."""
    if not watch:
        if interval is not None:
            raise CommandLineError("--interval is for --watch. Expected --watch with it.")
        return
    if interval is not None and not 0.01 <= interval < float("inf"):
        raise CommandLineError(f"--interval is {interval:g}. Expected 0.01 seconds or more.")
    others = {"--stream": stream, "--rate": rate is not None, "--output": output is not None}
    others |= {"--from kafka:TOPIC": topic_of(source or "") is not None, f"--count {count}": count not in (None, 1)}
    if wrong := [name for name, given in others.items() if given]:
        raise CommandLineError(
            f"--watch and {' and '.join(wrong)} exclude each other: it asks for one sample, again and again, and keeps "
            "no answers. Expected one of them."
        )


def _is_same_file(one: str, other: str) -> bool:
    try:
        return Path(one).expanduser().samefile(other)
    except OSError:
        return False


def _leave_standard_output() -> None:
    """Let what could not be written to standard output vanish; Python would complain when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _endpoint(run: Path | None, address: str | None, model_name: str | None) -> Endpoint:
    import dataclasses

    from experiments_manager.client.endpoint import Endpoint, find_endpoint

    if run is None:
        if address is None or model_name is None:
            raise CommandLineError(
                "No model to ask. Expected a run folder, or --address HOST:PORT together with --model-name NAME."
            )
        return Endpoint(Path.cwd(), False, address, model_name)
    found = find_endpoint(run)
    return dataclasses.replace(found, address=address or found.address, model=model_name or found.model)


def _version(given: str | None) -> int | str | None:
    return int(given) if given is not None and given.isascii() and given.isdigit() else given


def _result(endpoint: Endpoint, summary: Summary, files: list[str]) -> dict[str, Any]:
    return {
        "run_dir": str(endpoint.path) if endpoint.is_run else None,
        "address": endpoint.address,
        "model": endpoint.model,
        "answers": summary.answers,
        "seconds": summary.seconds,
        "rate": summary.rate,
        "p50_ms": summary.p50,
        "p99_ms": summary.p99,
        "versions": {str(version): answers for version, answers in summary.versions.items()},
        "retries": summary.retries,
        "predictions": files,
    }
