"""The embedded engine as a training's sidecar: a process of its own that ends with the training, however that ends.

The parent calls `Sidecar.start`; the child is this module run as a program. On Linux the kernel ends the child with
its parent; everywhere it ends when its standard input does, which only the parent holds open.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments_manager.common import console
from experiments_manager.common.exit_codes import ExitCode
from experiments_manager.common.machine.processes import die_with_parent, end_session
from experiments_manager.common.signals import exit_process
from experiments_manager.serving.launch.engines import Service, environment
from experiments_manager.serving.launch.external_process import PATIENCE
from experiments_manager.serving.server.flags import command_line, run

logger = logging.getLogger(__name__)

NICENESS = 5
"""Training comes first, once the first version is loaded: where both want the processor, the server waits."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before a server that died is started again, twice as many each time; from the beginning after a calm time."""
CALM_SECONDS = 300.0
AUTOGROUP = Path("/proc/self/autogroup")
"""Where Linux shares the processor out by sessions, as on most desktops, this file has the niceness that counts."""
POLL_SECONDS = 3
"""Between two looks for new versions: early epochs may bring several a second, and each would be loaded."""


class Sidecar:
    """A server process that lives as long as this one at most.

    A server that is killed, or dies, is started again.

    Args:
        tell: Called with one sentence if the server ends by itself.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._process: subprocess.Popen | None = None
        self._stopping, self._asked = threading.Event(), False
        self._starting = threading.Lock()

    def start(self, service: Service, log_file: Path) -> None:
        """Start the server; it waits by itself for the first version.

        Args:
            service: What to serve, and where.
            log_file: Takes what the server says; an earlier one is continued.
        """
        flags = dataclasses.replace(service.flags, file_system_poll_wait_seconds=POLL_SECONDS)
        start = [sys.executable, "-m", __name__, str(os.getpid()), *command_line(flags)]
        self._launch(start, service, log_file)
        threading.Thread(target=self._watch, args=(start, service, log_file), name="sidecar", daemon=True).start()

    def _launch(self, start: Sequence[str], service: Service, log_file: Path) -> None:
        with self._starting:
            if self._stopping.is_set():
                return
            with log_file.open("ab") as log:
                self._process = subprocess.Popen(
                    start,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env=environment(service),
                    start_new_session=True,
                )

    def ask_to_end(self) -> None:
        """Ask the server to end, if it runs, and wait for nothing."""
        self._stopping.set()
        with self._starting:
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()
                self._asked = True

    def stop(self) -> None:
        """End the server, if it runs, and wait for its end."""
        self._stopping.set()
        with self._starting:  # one that is just being started again is ended too
            if self._process is None:
                return
        if self._asked:  # a second signal would end it in the middle of its last answers
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)
        if self._process.poll() is None:
            end_session(self._process, PATIENCE)
        self._process.stdin.close()

    def _watch(self, start: Sequence[str], service: Service, log_file: Path) -> None:
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            code = self._process.wait()
            if self._stopping.is_set():
                return
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended by itself with exit code {code}"
            told = f"The model server {how}; training goes on. Its log: {log_file}."
            if code == ExitCode.BAD_INPUT:  # it would do so again
                again = console.command_line("serve", service.flags.model_base_path)
                self._tell(f"{told} To start it again: {again}")
                return
            pause = FIRST_PAUSE if time.monotonic() - began > CALM_SECONDS else pause
            self._tell(f"{told} It is started again in {pause:g} s.")
            if self._stopping.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE)
            self._process.stdin.close()
            try:
                self._launch(start, service, log_file)
            except OSError as error:
                self._tell(f"The model server cannot be started again: {error}.")
                return


def main(arguments: Sequence[str] | None = None) -> int:
    """Be the child process: `PARENT_PID FLAG …`."""
    parent, *flags = sys.argv[1:] if arguments is None else arguments
    die_with_parent(int(parent))
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    return run(flags, on_ready=_lower_process_priority)


def _lower_process_priority() -> None:
    """Give way to the training, now that a version answers: all threads, which Linux counts one by one."""
    for thread in _threads():
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))
    for _ in range(10):  # the kernel takes one such change in a tenth of a second
        try:
            AUTOGROUP.write_text(str(NICENESS))
        except BlockingIOError:
            time.sleep(0.1)
        except OSError:  # another system, or another kind of scheduling
            return
        else:
            return


def _threads() -> list[int]:
    try:
        return [int(task.name) for task in Path("/proc/self/task").iterdir()]
    except OSError:  # another system, where a process has one priority
        return [0]


def _end_with_standard_input() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    exit_process(main())  # as in `flags.main`
