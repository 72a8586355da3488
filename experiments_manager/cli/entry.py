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
from typing import Any

from experiments_manager.cli import TRAINING_COMMANDS
from experiments_manager.common.exit_codes import ExitCode
from experiments_manager.common.signals import StopRequested, end_by_interrupt, exit_process, install_stop_signals


def main() -> None:
    """Run the console scripts `experiments_manager` and `em`."""
    end_by_interrupt()
    _write_all_text()
    if _trains(sys.argv[1:]):
        _outlive_readers()
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


def _outlive_readers() -> None:
    """Let a command go on when the reader of its output has gone, as `head -1` does; the rest is printed nowhere."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and stream.fileno() in (1, 2):
            stream.flush()
            text = io.TextIOWrapper(
                io.BufferedWriter(_Output(stream.fileno(), "w", closefd=False)),
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering or name == "stderr",
            )
            setattr(sys, name, text)


class _Output(io.FileIO):
    """An output that turns into the null device when its reader has gone."""

    def write(self, content: Any) -> int | None:
        try:
            return super().write(content)
        except BrokenPipeError:
            with Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), self.fileno())
            return super().write(content)


def _trains(arguments: Sequence[str]) -> bool:
    first = arguments[0] if arguments else ""
    return first in TRAINING_COMMANDS or first.startswith("-")  # a command line of another form may train


@contextlib.contextmanager
def _listening(arguments: Sequence[str]) -> Iterator[None]:
    """Inside, a signal stops a command that trains, wherever it is until its training takes the signals over."""
    if _trains(arguments):
        with install_stop_signals().interruptible():
            yield
    else:
        yield
