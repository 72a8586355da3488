"""The fork server as the driver sees it: started, asked for processes, asked how they ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import experiments_manager
from experiments_manager.common.console import warn
from experiments_manager.common.machine.processes import wait_or_kill_session
from experiments_manager.sweeps.errors import SweepError
from experiments_manager.sweeps.trials.channel import Channel, Message

FORK_SERVER = "experiments_manager.sweeps.trials.fork_server"
"""A program, not imported here: it is for another process."""
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_END_WITHIN = 5.0
_MOST_STARTS = 3
"""Servers that are tried for one process: one that was killed is replaced, one that cannot live ends the sweep."""


class ForkServer:
    """A warm process that forks others; it starts in the background, and another one takes its place if it is killed.

    Processes that were forked before go on then; how they end is not known.

    Args:
        threads: That each trial may use, for libraries which count them when they are imported.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._modules: list[str] = []
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        root = str(Path(experiments_manager.__file__).parents[1])
        path = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), root])
        environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "PYTHONPATH": path}
        environment |= {name: os.environ.get(name, str(self._threads)) for name in _THREADS}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", FORK_SERVER, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        self._control, self._channel = ours, Channel(ours)
        self._is_ready = False

    @property
    def process_id(self) -> int:
        """The id of the process."""
        return self._process.pid

    def fork(self) -> tuple[int, Channel]:
        """Make a process that waits for what to do.

        Returns:
            Its id, and the channel to it.

        Raises:
            SweepError: The server cannot start, or was killed again and again.
        """
        for _ in range(_MOST_STARTS):
            ours, theirs = socket.socketpair()
            with theirs:
                answer = self._answer("fork", theirs.fileno())
            if answer is not None:
                return answer["pid"], Channel(ours)
            ours.close()
            self._start_again()
        raise self._gone()

    def _answer(self, request: str, *descriptors: int) -> Message | None:
        """Return what the server answers to a request once it is ready; `None` where it has ended."""
        if not self._is_ready:
            self._is_ready = bool(self._channel.receive())
        with contextlib.suppress(OSError):
            socket.send_fds(self._control, [f"{request}\n".encode()], descriptors)
        answers = self._channel.receive()
        return answers[0] if answers else None

    def _start_again(self) -> None:
        """Let another server take the place of one that was killed, whatever it was doing.

        Raises:
            SweepError: It ended by itself, and so would another one.
        """
        if self._process.wait() >= 0:
            raise self._gone()
        warn(f"The process that trials are forked from has ended ({self._how()}). Another one is started.")
        self.close()
        self._start()
        for name in self._modules:
            if self._answer(f"import {name}") is None:
                raise self._gone()

    def wait(self, pid: int) -> int | None:
        """Return how a process ended, as `os.waitpid` tells it; `None` where that is not known."""
        answer = self._answer(f"wait {pid}")
        return answer["status"] if answer else None

    def import_module(self, name: str) -> None:
        """Let all processes that are forked from here on have a module that their trials need.

        Raises:
            SweepError: It failed.
        """
        self._modules.append(name)
        if self._answer(f"import {name}") is None:
            self._start_again()

    def _how(self) -> str:
        code = self._process.wait()
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _gone(self) -> SweepError:
        return SweepError(
            f"The process that trials are forked from has ended ({self._how()}). Expected TensorFlow to be importable "
            "there, and memory to be left. Look at the messages above, then go on by --resume."
        )

    def close(self) -> None:
        """End the process; its children end by themselves, since the driver's ends of their channels are closed."""
        self._channel.close()
        wait_or_kill_session(self._process, _END_WITHIN)
