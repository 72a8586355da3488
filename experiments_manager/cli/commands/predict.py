"""`experiments_manager predict`."""

from __future__ import annotations

import contextlib
import datetime
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from experiments_manager.cli import options
from experiments_manager.common.console import warn
from experiments_manager.common.errors import CommandLineError

if TYPE_CHECKING:
    from experiments_manager.client.client import Client, Outputs
    from experiments_manager.client.progress import Summary
    from experiments_manager.client.target import Target
    from experiments_manager.settings import Settings


LEGACY_FIRST_TIMEOUT = 5
"""How many times as long as others the first answer to a legacy client may take."""

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
        metavar="FILE",
        help="A .csv or .npz file, or - for a table on standard output. By default both files, in a new folder "
        "predictions_<time> of the run.",
    ),
]
Source = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="PATH|-|camera:N",
        help="What to send: an image, .npy, .npz, .csv or video file, a folder of these, a camera, or standard "
        "input (CSV, a JSON value a line, or .npy). By default the settings' client or the validation data.",
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
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Ask the model server of a run, once or in a stream.

    What is asked comes from the settings' `client`, from the validation data, or from --from. A server that is
    restarted meanwhile costs no sample.
    """
    _check(count=count, stream=stream, rate=rate, output=output, json=json)
    if scale is not None and source is None:
        raise CommandLineError("--scale is for what --from reads. Expected --from PATH beside it.")
    _check_places(source, output)

    from experiments_manager.cli.results import ResultLine
    from experiments_manager.client.client import Client
    from experiments_manager.client.errors import ReaderGoneError
    from experiments_manager.client.progress import terminal_line
    from experiments_manager.client.session import predict_all

    line = ResultLine() if json else None
    target = _target(run, address, model_name)
    given = {"timeout": timeout, "patience": wait, "version": _version(model_version)}
    given |= {"tls": ssl_config_file, "token_file": auth_token_file}
    chosen = target.client_options() | {name: value for name, value in given.items() if value is not None}
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(**chosen))
        plan = _Plan(client, target, output, stack, debug=debug)
        plan.prepare(source, scale)
        try:
            summary = predict_all(
                client,
                plan.requests,
                plan.on_answer,
                count=count,
                in_flight=in_flight or plan.in_flight,
                rate=rate,
                make_line=lambda: terminal_line(quiet=quiet),
            )
        except ReaderGoneError:  # `head` has its lines: the user has what was asked for
            _leave_standard_output()
            return
    if not quiet:
        warn("\n".join([str(summary), *(f"Predictions in {file}" for file in plan.files)]))
    if line:
        line.write(_result(target, summary, plan.files))


def _check(*, count: int | None, stream: bool, rate: float | None, output: str | None, json: bool) -> None:
    """Refuse options that do not go together, before anything is imported or asked."""
    if count is not None and stream:
        raise CommandLineError("--count and --stream exclude each other. Expected one of them.")
    if rate is not None and rate <= 0:
        raise CommandLineError(f"--rate is {rate:g}. Expected more than 0 requests a second.")
    if json and output == "-":
        raise CommandLineError("--json and --output - both want standard output. Expected one of them.")


def _leave_standard_output() -> None:
    """Let what could not be written to standard output vanish; Python would complain when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check_places(source: str | None, output: str | None) -> None:
    """Refuse what could be neither read nor written, before a server is waited for."""
    if source is not None:
        from experiments_manager.client.inputs.sources import check_source

        check_source(source)
    if output is not None:
        from experiments_manager.client.outputs.writer import check_output

        check_output(output)


class _Plan:
    """Where requests come from, and where answers go; the stack closes both."""

    def __init__(
        self, client: Client, target: Target, output: str | None, stack: contextlib.ExitStack, *, debug: bool
    ) -> None:
        self._client, self._target, self._stack, self._debug = client, target, stack, debug
        self._started_in = Path.cwd()
        self._output = str(self._started_in / output) if output not in (None, "-") else output
        self.in_flight = 16
        self.files: list[str] = []
        self.requests: Iterator[Any] = iter(())
        self._handlers: list[Any] = []

    def prepare(self, source: str | None, scale: float | None) -> None:
        """Find the requests: from a source, else from the settings' client, else from the validation data."""
        if source is not None:
            from experiments_manager.client.inputs.sources import open_source

            self.requests = open_source(source, self._client.info(), scale=scale)
            self._write_outputs()
            return
        settings = self._settings()
        if settings.has("client"):
            self._use_client_hook(settings)
        else:
            self._use_validation_data(settings)

    def on_answer(self, request: Any, outputs: Outputs) -> None:
        """Hand an answer to all who want it."""
        for handler in self._handlers:
            handler(request, outputs)

    def _settings(self) -> Settings:
        if not self._target.has_settings:
            raise CommandLineError(
                "There is no run whose data could be sent. Expected --from PATH, or a run folder whose settings have a "
                "`client` or validation data."
            )
        from experiments_manager.cli.training_session import start_engine
        from experiments_manager.runs import open_run
        from experiments_manager.runs.run_settings import load_run_settings
        from experiments_manager.settings import load_settings

        start_engine(debug=self._debug)
        if file := self._target.legacy_settings:
            return load_settings(file, model_file_search=self._target.path)
        return load_run_settings(open_run(self._target.path))

    def _enter_folder(self, settings: Settings) -> None:
        """Return a client in a legacy file a working directory of its own, so that it overwrites nothing."""
        if not settings.is_legacy:
            return
        from experiments_manager.client.outputs.writer import make_output_folder
        from experiments_manager.settings.legacy.working_directory import working_directory

        folder = make_output_folder(self._default_folder())
        self._stack.callback(self._leave_folder, folder)
        self._stack.enter_context(working_directory(settings, folder))

    def _leave_folder(self, folder: Path) -> None:
        """Note the folder if there is something in it, else removes it."""
        try:
            folder.rmdir()
        except OSError:
            self.files.append(str(folder))

    def _use_client_hook(self, settings: Settings) -> None:
        from experiments_manager.client.hooks import make_client_hook

        started_with = {"run": str(self._target.path), "address": self._client.address, "model": self._client.model}
        self._enter_folder(settings)
        hook = make_client_hook(settings, started_with, debug=self._debug)
        self._stack.push(lambda kind, *_: hook.close() if kind is None or not hook.is_legacy else None)
        self.requests, self.in_flight = hook.requests, hook.in_flight
        if hook.is_legacy:
            self._client.keep_messages = True
            self._client.first_timeout = LEGACY_FIRST_TIMEOUT * self._client.timeout
        if self._output is not None:
            self._write_outputs()
        self._handlers.append(hook.on_response)

    def _use_validation_data(self, settings: Settings) -> None:
        inputs = list(self._client.info().inputs)

        from experiments_manager.settings.legacy.working_directory import session_folder, working_directory
        from experiments_manager.training.setup.samples import split_samples

        # The folder of a run of the legacy framework is itself what the functions of its file ran in.
        folder = self._target.path if self._target.legacy_settings else session_folder(settings, self._target.path)
        self._stack.enter_context(working_directory(settings, folder))
        self.requests = split_samples(settings, inputs)
        self._write_outputs()

    def _write_outputs(self) -> None:
        from experiments_manager.client.outputs.writer import PredictionWriter

        writer = PredictionWriter.for_output(self._output, self._default_folder())
        self._stack.callback(writer.close)
        self.files += writer.files
        numbers = iter(range(1 << 62))

        def write(request: Any, outputs: Outputs) -> None:
            number = next(numbers)
            writer.write(getattr(request, "label", str(number)), outputs.version, outputs)

        self._handlers.append(write)

    def _default_folder(self) -> Path:
        time = datetime.datetime.now().strftime("%Y-%m-%d--%H-%M-%S")
        return (self._target.path if self._target.has_settings else self._started_in) / f"predictions_{time}"


def _target(run: Path | None, address: str | None, model_name: str | None) -> Target:
    import dataclasses

    from experiments_manager.client.target import Target, find_target

    if run is None:
        if address is None or model_name is None:
            raise CommandLineError(
                "Nobody knows which model to ask. Expected a run folder, or --address HOST:PORT together with "
                "--model-name NAME."
            )
        return Target(Path.cwd(), False, address, model_name)
    found = find_target(run)
    return dataclasses.replace(found, address=address or found.address, model=model_name or found.model)


def _version(given: str | None) -> int | str | None:
    return int(given) if given is not None and given.isascii() and given.isdigit() else given


def _result(target: Target, summary: Summary, files: list[str]) -> dict[str, Any]:
    return {
        "run_dir": str(target.path) if target.run else None,
        "address": target.address,
        "model": target.model,
        "answers": summary.answers,
        "seconds": summary.seconds,
        "rate": summary.rate,
        "p50_ms": summary.p50,
        "p99_ms": summary.p99,
        "versions": {str(version): answers for version, answers in summary.versions.items()},
        "retries": summary.retries,
        "predictions": files,
    }
