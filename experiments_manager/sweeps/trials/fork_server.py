"""The warm parent of the trials: a process that has imported TensorFlow, never uses it, and forks one child a trial.

A process that has run an operation of TensorFlow has threads that a fork does not take along, so that the child hangs.
This one imports what a training needs and nothing else; users' code, which may use TensorFlow as soon as it is
imported, runs in the children alone. A child begins in some hundredths of a second, and shares the memory of all that
was imported.

It has a session of its own, so that Ctrl-C reaches the driver alone, and ends when the driver does. This module is both
sides of it: `ForkServer` is what the driver has of it, and `serve` what runs in the process.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import experiments_manager
from experiments_manager.common.console import warn
from experiments_manager.common.machine.imports import imported_for_good
from experiments_manager.common.machine.processes import wait_or_kill_session
from experiments_manager.common.machine.redirection import errors_held_back
from experiments_manager.sweeps.errors import SweepError
from experiments_manager.sweeps.trials.channel import Channel, Message

TRIALS = "experiments_manager.sweeps.trials.trial_process"
"""What runs in the children. By name, as the driver, which imports this module, must not import TensorFlow."""
WARM = (
    "experiments_manager.training.engine.runner",
    "experiments_manager.monitoring.watchers",
    "experiments_manager.compat.tensorboard",
    TRIALS,
)
"""What is imported before the first fork, with all that it imports."""
_OOM_SCORE = "500"
"""Which process a machine that is out of memory ends first: a trial rather than the driver, its parent or a shell."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Of libraries which count their threads when they are imported."""
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
        environment |= {name: os.environ.get(name, str(self._threads)) for name in THREAD_VARIABLES}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
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

    def begin(self, task: Mapping[str, Any]) -> Callable[[], Message | None]:
        """Let a process of its own do one task.

        Returns:
            What waits for its end, and gives the one message that it tells; `None` where it told none.

        Raises:
            SweepError: No process can be made.
        """
        pid, channel = self.fork()
        channel.send(task)

        def told() -> Message | None:
            messages = channel.receive()
            channel.close()
            self.wait(pid)
            return messages[0] if messages else None

        return told

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


def serve(descriptor: int) -> None:
    """Fork a child for each request, until the driver is gone.

    Args:
        descriptor: Of the socket to the driver. Requests are `fork`, sent along with the child's own socket and
            answered by `{"pid": …}`; `wait PID`, answered by `{"status": …}` as of `os.waitpid`; and `import MODULE`,
            answered by `{"imported": …}`.
    """
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    control = socket.socket(fileno=descriptor)
    with errors_held_back(), imported_for_good():  # what is not looked at stays shared
        for name in WARM:
            importlib.import_module(name)
        gc.collect()
    channel = Channel(control)
    channel.send({"ready": True})
    while True:
        content, descriptors, _, _ = socket.recv_fds(control, 1 << 16, 1)
        if not content:
            return
        request, _, argument = content.decode().strip().partition(" ")
        if request == "wait":
            channel.send({"status": _wait(int(argument))})
            continue
        if request == "import":
            importlib.import_module(argument)
            channel.send({"imported": argument})
            continue
        pid = _fork()
        if pid == 0:
            control.close()
            _be_a_child(descriptors[0])
        for number in descriptors:
            os.close(number)
        channel.send({"pid": pid})


def _fork() -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads in a process that forks: those that wait only
        return os.fork()


def _be_a_child(descriptor: int) -> None:
    """Run trials, and end without what Python does at its end: that belongs to the parent."""
    code = 1
    try:
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
        importlib.import_module(TRIALS).run_trials(Channel(socket.socket(fileno=descriptor)))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _wait(pid: int) -> int | None:
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return None


if __name__ == "__main__":
    serve(int(sys.argv[1]))
