"""`predict --watch`: which version of a run's model answers, and what, while training goes on."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

from experiments_manager.cli.prediction_plan import PredictionPlan
from experiments_manager.cli.results import ResultLine
from experiments_manager.client.client import Client
from experiments_manager.client.endpoint import Endpoint
from experiments_manager.client.errors import OutputClosedError, ServerGoneError
from experiments_manager.client.watching import Sighting, VersionWatch
from experiments_manager.common.console import command_line, warn
from experiments_manager.common.errors import CommandLineError
from experiments_manager.export.model_folders import find_target, is_at_work

AFTER_TRAINING = 5.0
"""Seconds that a server may be out of reach where nobody trains the run any more."""


def watch_versions(
    client: Client,
    endpoint: Endpoint,
    run: Path | None,
    source: str | None,
    scale: float | None,
    *,
    interval: float | None,
    wait: float | None,
    json: bool,
    quiet: bool,
    debug: bool,
) -> None:
    """Ask for one sample every `interval` seconds and print a line whenever another version answers.

    Args:
        client: Asks, without patience of its own.
        endpoint: What is asked.
        run: The run folder, as given.
        source: Where the sample comes from, as for `predict`.
        scale: What its pixel values are multiplied by.
        interval: Seconds from one request to the next; `None`: 1.
        wait: Seconds that the server may be away; `None`: as long as the run is trained, and a little longer.
        json: Whether to print a JSON object a line.
        quiet: Whether to say nothing beside these lines.
        debug: As for `predict`.

    Raises:
        ClientError: There is no server, or it refuses.
        OutputClosedError: The pipe of standard output is closed.
    """
    trains, interval = _training(run, endpoint), 1.0 if interval is None else interval
    watch = VersionWatch(client, interval=interval, patience=lambda: _patience(trains, endpoint, wait))
    with contextlib.ExitStack() as stack:
        line = stack.enter_context(contextlib.closing(ResultLine())) if json else None
        if not quiet:
            warn(f"Asking {client.address} every {interval:g} s until Ctrl-C …")
        try:
            watch.wait()
            plan = stack.enter_context(PredictionPlan(client, endpoint, None, None, debug=debug, writes=False))
            plan.prepare(source, scale)
            request = next(iter(plan.requests), None)
            if request is None:
                raise CommandLineError("Nothing to send: there is no sample. Expected one at least.")
            watch.run(request, lambda sighting: _tell(sighting, endpoint, line))
        except ServerGoneError:
            if trains is None or trains() or not watch.versions:
                raise
            warn(
                f"The training has ended and its server with it. Last version: {watch.versions[-1]}. "
                f"Serve it again: {command_line('serve', str(run))}"
            )
    if not quiet:
        warn(f"{len(watch.versions)} version{'s' * (len(watch.versions) != 1)} seen.")


def _training(run: Path | None, endpoint: Endpoint) -> Callable[[], bool] | None:
    """Return what tells whether the run is being trained; `None` where there is no run."""
    if run is None or not endpoint.is_run:
        return None
    target = find_target(run)
    return lambda: is_at_work(target)


def _patience(trains: Callable[[], bool] | None, endpoint: Endpoint, wait: float | None) -> float:
    if wait is not None:
        return wait
    if trains is None:
        return endpoint.patience
    return float("inf") if trains() else AFTER_TRAINING


def _tell(sighting: Sighting, endpoint: Endpoint, line: ResultLine | None) -> None:
    try:
        if line is not None:
            line.add(sighting.as_record())
        else:
            sys.stdout.write(sighting.as_text(endpoint.class_names) + "\n")
            sys.stdout.flush()
    except BrokenPipeError as error:
        raise OutputClosedError("The pipe that takes the versions is closed.") from error
