"""The embedded engine as a training's sidecar: a process of its own that ends with the training, however that ends.

The parent calls `Sidecar.start`; the child is this module run as a program. On Linux the kernel ends the child with
its parent; everywhere it ends when its standard input does, which only the parent holds open.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments_manager.common.signals import exit_process
from experiments_manager.serving.launch.engines import Service, environment
from experiments_manager.serving.launch.external_process import PATIENCE, die_with_parent, end_process
from experiments_manager.serving.server.flags import command_line, run

logger = logging.getLogger(__name__)

NICENESS = 5
"""Training comes first: where both want the processor, the server waits."""
STARTING_NICENESS = 10
"""While it imports TensorFlow, which takes seconds, no requests come yet, and it takes what is left over."""
AUTOGROUP = Path("/proc/self/autogroup")
"""Where Linux shares the processor out by sessions, as on most desktops, this file has the niceness that counts."""
POLL_SECONDS = 3
"""Between two looks for new versions: early epochs may bring several a second, and each would be loaded."""


class Sidecar:
    """A server process that lives as long as this one at most.

    Args:
        tell: Called with one sentence if the server ends by itself.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._process: subprocess.Popen | None = None
        self._stopping = self._asked = False

    def start(self, service: Service, log_file: Path) -> None:
        """Start the server; it waits by itself for the first version.

        Args:
            service: What to serve, and where.
            log_file: Takes what the server says; an earlier one is continued.
        """
        flags = dataclasses.replace(service.flags, file_system_poll_wait_seconds=POLL_SECONDS)
        start = [sys.executable, "-m", __name__, str(os.getpid()), *command_line(flags)]
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(
                start, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment(service), start_new_session=True
            )
        watch = (log_file, service.flags.model_base_path)
        threading.Thread(target=self._watch, args=watch, name="sidecar", daemon=True).start()

    def ask_to_end(self) -> None:
        """Ask the server to end, if it runs, and wait for nothing."""
        self._stopping = True
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._asked = True

    def stop(self) -> None:
        """End the server, if it runs, and wait for its end."""
        self._stopping = True
        if self._process is None:
            return
        if self._asked:  # a second signal would end it in the middle of its last answers
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)
        if self._process.poll() is None:
            end_process(self._process)
        self._process.stdin.close()

    def _watch(self, log_file: Path, base_path: str) -> None:
        code = self._process.wait()
        if self._stopping:
            return
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended by itself with exit code {code}"
        again = shlex.join(["experiments_manager", "serve", base_path])
        self._tell(f"The model server {how}; training goes on. Its log: {log_file}. To start it again: {again}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Be the child process: `PARENT_PID FLAG …`."""
    parent, *flags = sys.argv[1:] if arguments is None else arguments
    die_with_parent()
    if os.getppid() != int(parent):  # it died before the kernel was asked
        return 0
    _take_second_place()
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    _import_in_the_background()
    return run(flags)


def _take_second_place() -> None:
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    for _ in range(10):  # the kernel takes one such change in a tenth of a second
        try:
            AUTOGROUP.write_text(str(NICENESS))
        except BlockingIOError:
            time.sleep(0.1)
        except OSError:  # another system, or another kind of scheduling
            return
        else:
            return


def _import_in_the_background() -> None:
    """Import TensorFlow in a thread of low priority, which on Linux each thread has for itself, and wait for it."""
    importing = threading.Thread(target=_import_tensorflow)
    importing.start()
    importing.join()


def _import_tensorflow() -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), STARTING_NICENESS)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow  # noqa: F401


def _end_with_standard_input() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    exit_process(main())  # as in `flags.main`
