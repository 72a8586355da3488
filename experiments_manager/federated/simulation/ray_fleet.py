"""Clients in processes that Ray starts, on this machine or on those of a cluster.

Ray reads the environment when it is imported, so nothing imports it before `_environment` is there.
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Message, RecordDict

from experiments_manager.federated.checked_options import checked_options
from experiments_manager.federated.client.client_answers import ClientAnswers
from experiments_manager.federated.errors import FederationError, client_problem
from experiments_manager.federated.flower import QUIET
from experiments_manager.federated.local.client import ClientState, FederatedClient, client_of
from experiments_manager.federated.local.trainer import LocalTrainer
from experiments_manager.federated.simulation.local_grid import Client
from experiments_manager.federated.simulation.simulated_fleet import LocalFleet
from experiments_manager.settings import Settings, load_settings
from experiments_manager.training.devices.devices import prepared_devices
from experiments_manager.training.engine.context import TrainingContext

_SILENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it remarks that it hides GPUs, which `RayWorker` does
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


class RayWorker:
    """What runs in a process of Ray: clients that were asked for so far, and one model for them in turn.

    Args:
        folder: The working directory.
        file: The settings module.
        start_dir: What its relative paths start from.
        overrides: Those of the settings, with the number of clients.
    """

    def __init__(self, folder: str, file: str, start_dir: str, overrides: Mapping[str, Any]) -> None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # each process would take all of a GPU's memory
        os.chdir(folder)
        self._settings = load_settings(file, dict(overrides), start_dir=start_dir)
        self._options = checked_options(self._settings)
        self._clients: dict[int, FederatedClient] = {}
        self._trainer: LocalTrainer | None = None
        # The scope stays open as long as the process.
        self._devices = contextlib.ExitStack().enter_context(prepared_devices(self._settings))

    def answer(
        self, number: int, message_type: str, content: RecordDict, kept: ClientState | None
    ) -> tuple[RecordDict, ClientState | None] | str:
        """Answer a message to a client; return the answer and what the client goes on from, or what went wrong.

        Args:
            number: The client's.
            message_type: As for `ClientAnswers.answer`.
            content: As for `ClientAnswers.answer`.
            kept: What the client goes on from.
        """
        try:
            if number not in self._clients:
                self._clients[number] = client_of(self._settings, number, self._options.clients, kept=kept)
            client = self._clients[number]
            client.restore(kept)
            if self._trainer is None:
                proximal = self._options.strategy == "FedProx"
                self._trainer = LocalTrainer.make(self._settings, self._devices, client.train, proximal=proximal)
            work = contextlib.nullcontext((self._trainer, client))
            answers = ClientAnswers.of(self._settings, number, self._settings.random_seed)
            return answers.answer(message_type, content, lambda: work), client.kept
        except Exception as error:  # whatever a user's hook raised: other clients go on, and not all errors can be sent
            return client_problem(error)


class RayFleet(LocalFleet):
    """Clients that train in processes of Ray; see `ray_fleet`. Any process can train for any client.

    Args:
        context: The run of the global model.
        workers: Handles of the processes.
    """

    def __init__(self, context: TrainingContext, workers: list[Any]) -> None:
        super().__init__(context, len(workers))
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._busy: set[Any] = set()
        for worker in workers:
            self._free.put(worker)

    def make_client(self, number: int) -> Client:
        """Return what lets a process answer messages to a client."""
        import ray

        def reply(message: Message) -> Message:
            worker, kind = self._free.get(), message.metadata.message_type
            self._busy.add(worker)
            try:
                asked = worker.answer.remote(number, kind, message.content, self.state_for(number, kind))
                answered = ray.get(asked)
            finally:
                self._busy.discard(worker)
                self._free.put(worker)
            if isinstance(answered, str):
                raise FederationError(answered)
            content, self._left[number] = answered
            return Message(content, reply_to=message)

        return reply

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go back to what `state` returned, and begin processes anew whose clients hang."""
        import ray

        super().restore(arrays)
        for worker in list(self._busy):
            ray.kill(worker, no_restart=False)

    def _patience(self) -> float:
        return 0.0  # clients in other processes do not hear that they should stop


@contextlib.contextmanager
def ray_fleet(context: TrainingContext, workers: int | None = None) -> Iterator[RayFleet]:
    """Start Ray and give the clients of a run; nothing of it runs afterwards.

    Args:
        context: The run of the global model.
        workers: How many processes there are; by default one for each processor. Results do not depend on it.

    Raises:
        FederationError: Ray does not start.
    """
    settings = context.experiment.settings
    clients = checked_options(settings).clients
    with contextlib.ExitStack() as stack:
        stack.enter_context(_environment())
        import ray

        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="em_ray_", ignore_cleanup_errors=True))
        if not ray.is_initialized():
            stack.callback(ray.shutdown)
            _start_ray(min(workers or os.cpu_count() or 1, clients), folder)
        processors = int(ray.cluster_resources().get("CPU", 1))
        count = max(1, min(workers or processors, processors, clients))
        yield RayFleet(context, [_start_worker(settings) for _ in range(count)])


def _start_worker(settings: Settings) -> Any:
    import ray

    overrides = {**settings.overrides, "federated": dict(settings.federated)}
    start = ray.remote(num_cpus=1, max_restarts=-1)(RayWorker).remote
    return start(str(Path.cwd()), str(settings.file), str(settings.start_dir), overrides)


def _start_ray(workers: int, folder: str) -> None:
    """Start Ray on the loopback address alone, unless there is a cluster to join.

    Raises:
        FederationError: It does not start.
    """
    import ray

    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False, "include_dashboard": False}
    if not os.environ.get(_CLUSTER):
        options |= {"num_cpus": workers, "_node_ip_address": "127.0.0.1", "_temp_dir": folder}
    try:
        ray.init(**options)
    except Exception as error:  # of many kinds
        raise FederationError(
            f"Ray does not start. {client_problem(error)} Expected {workers} processes. Try --workers 1, or train in "
            "this process (--engine process)."
        ) from error


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Set what processes of Ray inherit, and put back what was there."""
    wanted = {**_SILENT, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if not os.environ.get(_CLUSTER):
        wanted |= _ALONE
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
