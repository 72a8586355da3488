"""The processes of the trials that run at the same time: started, listened to, and killed where they must be."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from experiments_manager.common.machine.processes import own_bytes, usable_processors
from experiments_manager.sweeps.trials.channel import Channel, Message
from experiments_manager.sweeps.trials.fork_server import ForkServer
from experiments_manager.sweeps.trials.trial_pool import DIED

_SECONDS_BETWEEN_CHECKS = 0.2
_PROGRESS = ("alive", "epoch", "asked")
"""Messages that tell of progress; a process that begins again has made none by that."""
_BROKEN_OFF = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""Signals by which somebody else ends a process; others are faults of what it ran."""


def threads_of_a_trial(parallel: int) -> int:
    """Return how many threads each of some trials should compute with."""
    return max(1, usable_processors() // parallel)


def visible_gpus() -> list[str]:
    """Return the GPUs that trials may use, as `CUDA_VISIBLE_DEVICES` names them; TensorFlow is not asked for that."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip() and name.strip() != "-1"]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    told = subprocess.run([program, "--list-gpus"], capture_output=True, text=True, check=False, timeout=30)
    return [str(number) for number, line in enumerate(told.stdout.splitlines()) if line.startswith("GPU ")]


def gpus_of_slot(slot: int, parallel: int, gpus: list[str]) -> str | None:
    """Return the value of `CUDA_VISIBLE_DEVICES` for the trials of one slot; `None` to leave it as it is.

    With more GPUs than trials each trial has several; with fewer, some trials share one.
    """
    if not gpus:
        return None
    if len(gpus) >= parallel:
        return ",".join(gpus[slot::parallel])
    return gpus[slot % len(gpus)]


def out_of_memory_kills() -> int:
    """Return how many processes the system has ended for want of memory so far; 0 where it does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


@dataclasses.dataclass
class _Worker:
    slot: int
    pid: int
    channel: Channel
    trial: int | None = None
    trials: int = 0
    kills_before: int = dataclasses.field(default_factory=out_of_memory_kills)
    process: psutil.Process | None = None
    """The process itself, which psutil tells from a later one of the same id; `None` where it ended at once."""
    killed: str | None = None
    """Why we have killed it."""


class Pool:
    """Processes of this machine that run trials; see `TrialPool`.

    Args:
        server: What they are forked from.
        parallel: How many there are at a time.
        trials_per_process: Trials that one runs before it is replaced.
        timeout: Seconds without a sign of progress after which one is killed; `None`: never.
        memory_limit: Bytes above which one is killed; `None`: never.
    """

    def __init__(
        self,
        server: ForkServer,
        parallel: int,
        *,
        trials_per_process: int = 1,
        timeout: float | None = None,
        memory_limit: int | None = None,
    ) -> None:
        self._server, self._parallel = server, parallel
        self._trials_per_process, self._timeout, self._memory_limit = trials_per_process, timeout, memory_limit
        self._workers: dict[int, _Worker] = {}
        self._selector = selectors.DefaultSelector()
        self._gpus = visible_gpus()
        self._threads = threads_of_a_trial(parallel)
        self._checked = 0.0
        self._progressed: dict[int, float] = {}
        """When each trial gave its last sign of progress, or began first; kept while its process is replaced."""

    @property
    def running(self) -> list[int]:
        """The numbers of the trials that run."""
        return [worker.trial for worker in self._workers.values() if worker.trial is not None]

    @property
    def free(self) -> int:
        """How many more trials can run now."""
        return self._parallel - len(self.running)

    def reattach(self, tasks: Mapping[int, Message]) -> dict[int, dict[str, Any]]:
        """Reattach to nothing: the processes of an earlier driver end by themselves."""
        return {}

    def start(self, trial: int, task: Message) -> None:
        """Run a trial, in a process that waits for one or in a new one.

        Raises:
            SweepError: No process can be made.
        """
        worker = next((worker for worker in self._workers.values() if worker.trial is None), None) or self._new()
        worker.trial, worker.trials = trial, worker.trials + 1
        self._progressed.setdefault(trial, time.monotonic())
        gpus = gpus_of_slot(worker.slot, self._parallel, self._gpus)
        worker.channel.send({"kind": "train", "threads": self._threads, "gpus": gpus, **task})

    def answer(self, trial: int, *, go: bool) -> None:
        """Tell a trial that has asked whether it goes on."""
        self._of(trial).channel.send({"kind": "verdict", "go": go})

    def ask_to_stop(self) -> None:
        """Let all trials write a checkpoint and end at their next step."""
        for worker in list(self._workers.values()):
            worker.channel.send({"kind": "stop"})
            if worker.trial is None:
                self._end(worker)

    def poll(self, seconds: float) -> list[tuple[int, Message]]:
        """Wait for messages for some seconds at most.

        Returns:
            Messages with the number of the trial that each is of. The last one of a trial is `ended`, or `died` with
            `reason` and `outside`, which tells whether somebody else has killed its process.
        """
        found: list[tuple[int, Message]] = []
        for key, _ in self._selector.select(min(seconds, _SECONDS_BETWEEN_CHECKS)):
            found += self._read(key.data)
        if time.monotonic() - self._checked > _SECONDS_BETWEEN_CHECKS:
            self._checked = time.monotonic()
            for worker in list(self._workers.values()):
                self._check(worker)
        return found

    def close(self) -> None:
        """End all processes at once."""
        for worker in list(self._workers.values()):
            self._forget(worker)
            worker.channel.close()
            _kill(worker)
            self._server.wait(worker.pid)
        self._selector.close()

    def _new(self) -> _Worker:
        slots = {worker.slot for worker in self._workers.values()}
        pid, channel = self._server.fork()
        slot = next(number for number in range(self._parallel) if number not in slots)
        worker = self._workers[slot] = _Worker(slot, pid, channel, process=_process(pid))
        self._selector.register(channel, selectors.EVENT_READ, worker)
        return worker

    def _of(self, trial: int) -> _Worker:
        return next(worker for worker in self._workers.values() if worker.trial == trial)

    def _read(self, worker: _Worker) -> list[tuple[int, Message]]:
        messages, trial = worker.channel.receive(), worker.trial
        if trial is not None and any(message["kind"] in _PROGRESS for message in messages):
            self._progressed[trial] = time.monotonic()
        if messages and messages[-1]["kind"] == "ended":
            worker.trial = None
            self._progressed.pop(trial, None)
            if worker.trials >= self._trials_per_process or worker.killed:
                self._end(worker)
        elif worker.channel.closed:
            messages.append(self._death(worker))
        return [(trial, message) for message in messages] if trial is not None else []

    def _end(self, worker: _Worker) -> None:
        """Let a process end that has nothing to do any more."""
        self._forget(worker)
        worker.channel.close()
        self._server.wait(worker.pid)

    def _death(self, worker: _Worker) -> Message:
        self._forget(worker)
        worker.channel.close()
        _kill(worker)  # it may have closed its socket and live on
        status = self._server.wait(worker.pid)
        if worker.killed:
            self._progressed.pop(worker.trial, None)
            return {"kind": DIED, "reason": worker.killed, "outside": False}
        reason, outside = how_it_ended(status)
        if outside and out_of_memory_kills() > worker.kills_before:
            reason, outside = f"{reason}: the machine was out of memory", False
        return {"kind": DIED, "reason": reason, "outside": outside}

    def _forget(self, worker: _Worker) -> None:
        self._selector.unregister(worker.channel)
        del self._workers[worker.slot]

    def _check(self, worker: _Worker) -> None:
        """Kill a process that makes no progress, or takes too much memory."""
        if worker.trial is None or worker.killed:
            return
        silent = time.monotonic() - self._progressed[worker.trial]
        if self._timeout is not None and silent > self._timeout:
            worker.killed = f"no progress for {self._timeout:g} s (trial_timeout)"
        elif (
            self._memory_limit is not None
            and worker.process
            and (used := own_bytes(worker.process)) > self._memory_limit
        ):
            limit = self._memory_limit / 2**20
            worker.killed = f"it used {used / 2**20:.0f} MiB of memory, more than {limit:.0f} MiB (memory_limit)"
        if worker.killed:
            _kill(worker)


def how_it_ended(status: int | None) -> tuple[str, bool]:
    """Say how a process ended, and whether somebody else has ended it; `status` is that of `os.waitpid`."""
    if status is None:
        return "its process ended, and nobody knows how", True
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"its process ended with exit code {code}", False
    name = signal.Signals(-code).name
    return f"its process was ended by {name}", -code in _BROKEN_OFF


def _process(pid: int) -> psutil.Process | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid)
    return None


def _kill(worker: _Worker) -> None:
    """Kill a process, unless it has gone and its id is another's, as may be once its parent was killed."""
    if worker.process is not None:
        with contextlib.suppress(psutil.Error):
            worker.process.kill()
