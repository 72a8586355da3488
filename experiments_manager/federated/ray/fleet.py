"""Clients in Flower's own simulation: processes of Ray, on this machine or on those of a cluster."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import queue
import secrets
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments_manager.common.installation import install_command
from experiments_manager.federated.errors import FederationError
from experiments_manager.federated.flower import QUIET, flower
from experiments_manager.federated.local.trainer import LocalTrainer
from experiments_manager.federated.plan import FederationPlan
from experiments_manager.federated.ray.actor import ActorTask, client_app
from experiments_manager.settings import Settings
from experiments_manager.training.engine.context import TrainingContext

if TYPE_CHECKING:
    from flwr.app import Context
    from flwr.serverapp import Grid

    from experiments_manager.federated.server.federation_state import RoundReport

_START_SECONDS, _END_SECONDS, _POLL_SECONDS = 120.0, 30.0, 0.05
_SILENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it remarks that it hides GPUs, which `Worker` does
    "TF_CPP_MIN_LOG_LEVEL": "3",
    **QUIET,
}
"""Keeps Ray and Flower from asking the internet; its processes inherit it."""
_ALONE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # of Linux, too, this decides: without it, 127.0.0.1 is taken for 0.0.0.0
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # one for the whole process: Ray reads it once
}
"""Lets Ray listen on the loopback address alone, and heed nobody there who does not know the token."""
_CLUSTER = "RAY_ADDRESS"


def require_ray() -> None:
    """Raise where Ray is not there.

    Raises:
        FederationError: It is not installed.
    """
    flower()
    if importlib.util.find_spec("ray") is None:
        raise FederationError(f"The package ray is not installed. Install it: {install_command('federated-ray')}")


@contextlib.contextmanager
def ray_fleet(context: TrainingContext, server: LocalTrainer, workers: int | None = None) -> Iterator[RayFleet]:
    """Start Flower's simulation and give its clients; nothing of it runs afterwards.

    Args:
        context: The run of the global model.
        server: Knows its variables; clients train on models of their own.
        workers: How many processes there are; by default one for each processor. Results do not depend on it.

    Raises:
        FederationError: It does not start.
    """
    require_ray()
    settings = context.experiment.settings
    clients = FederationPlan.of(settings).clients
    with contextlib.ExitStack() as stack:
        stack.enter_context(environment())
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="em_ray_", ignore_cleanup_errors=True))
        simulation = _Simulation(
            _task(settings), clients, backend_config(min(workers or os.cpu_count() or 1, clients), folder)
        )
        stack.callback(simulation.stop)
        yield RayFleet(simulation)


class RayFleet:
    """A `Fleet` of processes; see `ray_fleet`."""

    kind = "ray"
    keeps_state = False
    config: Mapping[str, Any] = {}

    def __init__(self, simulation: _Simulation) -> None:
        from experiments_manager.federated.ray.grid import RayGrid

        self.grid = RayGrid(simulation.grid(), simulation.check)

    def before_round(self, round: int) -> None:  # noqa: A002
        """Do nothing: processes build what they need with their first message."""

    def after_round(self, report: RoundReport) -> None:
        """Let those who took part go on from what the round left them with."""
        self.grid.kept |= {number: self.grid.left[number] for number in report.participants if number in self.grid.left}
        self.grid.left = {}

    def state(self) -> Mapping[str, np.ndarray]:
        """Return what clients keep between rounds, by name."""
        return {
            f"{number}/{name}": value for number, kept in sorted(self.grid.kept.items()) for name, value in kept.items()
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Give it back to them."""
        kept: dict[int, dict[str, np.ndarray]] = {}
        for name, value in arrays.items():
            number, _, rest = name.partition("/")
            kept.setdefault(int(number), {})[rest] = value
        self.grid.kept, self.grid.left = dict(kept), {}


class _Simulation:
    """Flower's simulation in a thread of its own; its ServerApp hands over its grid, and waits."""

    def __init__(self, task: ActorTask, clients: int, backend: dict[str, Any]) -> None:
        self._task, self._clients, self._backend = task, clients, backend
        self._grids: queue.SimpleQueue[Grid] = queue.SimpleQueue()
        self._stop, self._error = threading.Event(), ""
        self._thread = threading.Thread(target=self._run, name="flower-simulation", daemon=True)
        self._thread.start()

    def grid(self) -> Grid:
        """Return Flower's grid, whose clients are there."""
        grid, end = None, time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            self.check()
            with contextlib.suppress(queue.Empty):
                grid = grid or self._grids.get(timeout=_POLL_SECONDS)
            if grid is not None and len(list(grid.get_node_ids())) == self._clients:
                return grid
            time.sleep(_POLL_SECONDS)
        raise FederationError(f"Flower's simulation did not start within {_START_SECONDS:g} s. Try --workers 1.")

    def check(self) -> None:
        """Raise where the simulation has ended, and say why."""
        if not self._thread.is_alive():
            raise FederationError(
                f"Flower's simulation has ended. {self._error} Expected it to run as long as the federation. Resume "
                "the run, or go on in this process (--engine process)."
            )

    def stop(self) -> None:
        """End it and its processes."""
        self._stop.set()
        self._thread.join(_END_SECONDS)

    def _run(self) -> None:
        from flwr.serverapp import ServerApp
        from flwr.simulation import run_simulation

        app = ServerApp()

        @app.main()
        def main(grid: Grid, context: Context) -> None:
            self._grids.put(grid)
            self._stop.wait()

        try:
            run_simulation(app, client_app(self._task), self._clients, backend_config=self._backend)
        except BaseException as error:  # Flower ends a process by sys.exit, and a thread would die silently
            self._error = f"{type(error).__name__}: {error}."


def _task(settings: Settings) -> ActorTask:
    overrides = {**settings.overrides, "federated": dict(settings.federated)}
    return ActorTask(uuid.uuid4().hex, str(Path.cwd()), str(settings.file), str(settings.start_dir), overrides)


def backend_config(workers: int, folder: str) -> dict[str, Any]:
    """Return how Ray is started: on the loopback address alone, unless there is a cluster to join."""
    ours: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if not os.environ.get(_CLUSTER):
        ours |= {"num_cpus": workers, "_node_ip_address": "127.0.0.1", "_temp_dir": folder}
    return {"init_args": ours, "client_resources": {"num_cpus": 1, "num_gpus": 0.0}}


@contextlib.contextmanager
def environment() -> Iterator[None]:
    """Set what processes of Ray inherit, and put back what Flower changes."""
    wanted = _SILENT if os.environ.get(_CLUSTER) else {**_SILENT, **_ALONE}
    before = {name: os.environ.get(name) for name in [*wanted, "PYTHONPATH"]}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
