"""The warm parent of the trials: a process that has imported TensorFlow, never uses it, and forks one child a trial.

A process that has run an operation of TensorFlow has threads that a fork does not take along, so that the child hangs.
This one imports what a training needs and nothing else; users' code, which may use TensorFlow as soon as it is
imported, runs in the children alone. A child begins in some hundredths of a second, and shares the memory of all that
was imported.

It has a session of its own, so that Ctrl-C reaches the driver alone, and ends when the driver does.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import socket
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

from experiments_manager.common.machine.imports import imported_for_good
from experiments_manager.sweeps.trials.channel import Channel

WARM = (
    "experiments_manager.training.engine.runner",
    "experiments_manager.monitoring.watchers",
    "experiments_manager.compat.tensorboard",
    "experiments_manager.sweeps.trials.trial_process",
)
"""What is imported before the first fork, with all that it imports."""
_OOM_SCORE = "500"
"""Which process a machine that is out of memory ends first: a trial rather than the driver, its parent or a shell."""


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
    with _startup_messages_kept(), imported_for_good():  # what is not looked at stays shared
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
        from experiments_manager.sweeps.trials.trial_process import run_trials

        run_trials(Channel(socket.socket(fileno=descriptor)))
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


@contextlib.contextmanager
def _startup_messages_kept() -> Iterator[None]:
    """Keep what TensorFlow's libraries write while they are loaded; shown only if the import fails."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(terminal, kept.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
