"""Where the process begins: signals are listened to before anything else is imported."""

from __future__ import annotations

import codecs
import contextlib
import gc
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments_manager.cli import TRAINING_COMMANDS
from experiments_manager.common.exit_codes import ExitCode
from experiments_manager.common.signals import StopRequested, end_by_interrupt, exit_process, install_stop_signals


def main() -> None:
    """Run the console scripts `experiments_manager` and `em`."""
    end_by_interrupt()
    _write_all_text()
    code: int | None = None
    try:
        with _listening(sys.argv[1:]):
            from experiments_manager.cli import main as commands

            code = commands.run(sys.argv[1:])
    except StopRequested:
        if code != ExitCode.INTERRUPTED:
            print("Stopped before training began. To go on, run the same command again.", file=sys.stderr, flush=True)
        code = ExitCode.INTERRUPTED
    if "experiments_manager.serving.server.server" in sys.modules:
        exit_process(code)  # gRPC's thread may abort the process while Python takes itself down
    gc.freeze()  # otherwise Python looks for cycles among all that TensorFlow made before it ends: a second lost
    sys.exit(code)


def _write_all_text() -> None:
    """Let no name of a file, no arrow in an encoding without one, and no closed output end a command.

    What is opened for a closed one takes its number, so that no file of ours gets it.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  (open to the end)
    output = sys.stdout
    if isinstance(output, io.TextIOWrapper):
        is_utf8 = codecs.lookup(output.encoding).name == "utf-8"
        output.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")


@contextlib.contextmanager
def _listening(arguments: Sequence[str]) -> Iterator[None]:
    """Inside, a signal stops a command that trains, wherever it is until its training takes the signals over."""
    first = arguments[0] if arguments else ""
    if first in TRAINING_COMMANDS or first.startswith("-"):  # a command line of the legacy form begins with an option
        with install_stop_signals().interruptible():
            yield
    else:
        yield
