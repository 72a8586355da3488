"""TensorBoard over a folder of runs, served by this process on the loopback address."""

from __future__ import annotations

import errno
import json
import socket
import time
import urllib.request
from pathlib import Path

from experiments_manager.runs import RunError, list_runs

HOST = "127.0.0.1"
RELOAD_SECONDS = 5.0
SAMPLES = {"scalars": 10_000, "histograms": 200, "images": 100, "text": 100}
"""Points that are kept of a series; TensorBoard's own defaults (1000 scalars, 10 images) leave gaps in a long run."""
_ANSWER_SECONDS = 60.0
_READ_SECONDS = 5.0


def logs_of(directory: Path | str) -> Path:
    """Find what TensorBoard shall read.

    Args:
        directory: A folder of runs, one run, or its `logs/`.

    Returns:
        The folder, absolute.

    Raises:
        RunError: There is no such folder, or nothing in it to be shown.
    """
    given = Path(directory).expanduser()
    if not given.is_dir():
        raise RunError(f"There is no folder {given}. Expected a folder of runs, or one run. Check the path.")
    folder = given.resolve()
    if folder.name == "logs" and (folder.parent / "run.json").is_file():
        folder = folder.parent
    if next(folder.rglob("events.out.tfevents.*"), None) is not None:
        return folder
    rows = list_runs(folder)
    if any(row.state in ("created", "running") for row in rows):
        return folder
    if rows:
        raise RunError(
            f"None of the {len(rows)} runs in {folder} has logs for TensorBoard. "
            "Expected at least one that was trained with `tensorboard = True`, which is the default."
        )
    raise RunError(
        f"There are no runs in {folder}. Expected a folder of runs, or one run. "
        "Name another, or make a run: experiments_manager train SETTINGS."
    )


def start_board(folder: Path, port: int | None = None) -> str:
    """Start TensorBoard in threads of this process, which end with it, and wait until it has something to show.

    Args:
        folder: From `logs_of`.
        port: The port; by default 6006, or the next one that is free.

    Returns:
        The address.

    Raises:
        RunError: The port is taken, or TensorBoard does not answer.
    """
    if port is not None:
        _check_free(port)  # before a heavy import

    from absl import logging as absl_logging
    from tensorboard import default, program

    from experiments_manager.monitoring.tensorboard.board_plugins import REPLACED

    absl_logging.set_verbosity(absl_logging.WARNING)
    tensorboard = program.TensorBoard(plugins=[REPLACED.get(plugin, plugin) for plugin in default.get_plugins()])
    tensorboard.configure(
        logdir=str(folder),
        host=HOST,
        port=port,
        reload_interval=RELOAD_SECONDS,
        load_fast="false",  # the other loader does not drop what a resumed run supersedes, nor runs that were deleted
        samples_per_plugin=SAMPLES,
        window_title=folder.name,
    )
    try:
        address = tensorboard.launch()
    except program.TensorBoardServerException as error:
        raise RunError(f"{error.msg}. Choose another --port, or leave it out to take any.") from error
    _wait_for_pages(address)
    return address


def _check_free(port: int) -> None:
    try:
        with socket.create_server((HOST, port)):
            pass
    except OSError as error:
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
        raise RunError(f"Port {port} {reason}. Expected a free one. Choose another --port, or leave it out.") from error


def _wait_for_pages(address: str) -> None:
    """Wait until TensorBoard answers and, unless that takes long, until it has read something."""
    began = time.monotonic()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy stands between
    while True:
        waited = time.monotonic() - began
        try:
            with opener.open(f"{address}data/plugins_listing", timeout=_ANSWER_SECONDS) as answer:
                pages = json.load(answer)
            if any(page["enabled"] for page in pages.values()) or waited > _READ_SECONDS:
                return
        except OSError as error:
            if waited > _ANSWER_SECONDS:
                raise RunError(f"TensorBoard at {address} does not answer: {error}. Try another --port.") from error
        time.sleep(0.05)
