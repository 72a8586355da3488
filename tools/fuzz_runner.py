"""Run command lines of experiments_manager in forked copies of one warm process, each with a time limit.

TensorFlow takes seconds to import and milliseconds to fork, as long as nothing of it has run yet.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

FAULT = "This is a fault of experiments_manager"
HANG = "hang"


def warm_up() -> None:
    """Import what every command needs, and run nothing of it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    import tensorflow  # noqa: F401

    from experiments_manager import api  # noqa: F401
    from experiments_manager.cli import main  # noqa: F401

    with contextlib.suppress(ImportError):
        from experiments_manager.training.dry_run import dry_run  # noqa: F401
    from experiments_manager.training.engine import evaluation, runner  # noqa: F401


def run_forked(arguments: Sequence[str], folder: Path, seconds: float = 60.0) -> tuple[int | str, str]:
    """Run one command line in a forked process.

    Args:
        arguments: What follows the program's name.
        folder: The working directory.
        seconds: After which it is killed.

    Returns:
        The exit code, or `hang`; and what it printed.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _child(arguments, folder, reader, writer)
    os.close(writer)
    output, end = bytearray(), time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if not select.select([reader], [], [], left)[0]:
            break
        part = os.read(reader, 65536)
        if not part:
            break
        output += part
    hung = left <= 0
    with contextlib.suppress(ProcessLookupError):
        if hung:
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reader)
    code = os.waitstatus_to_exitcode(status)
    return HANG if hung else code, output.decode("utf-8", "replace")


def _child(arguments: Sequence[str], folder: Path, reader: int, writer: int) -> None:
    os.close(reader)
    os.dup2(writer, 1)
    os.dup2(writer, 2)
    os.chdir(folder)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    code = 99
    try:
        from experiments_manager.cli.main import run

        code = int(run(arguments))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
