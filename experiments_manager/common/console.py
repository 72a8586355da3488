"""What a person at the terminal is told besides a command's output."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

PROGRAM = "experiments_manager"
"""The console script, and the package."""


def warn(text: str) -> None:
    """Write a sentence to standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def command_line(*words: str) -> str:
    """Return one of our commands as it can be pasted into a shell here, also where its script is not on the path."""
    if shutil.which(PROGRAM) is not None:
        return shlex.join([PROGRAM, *words])
    script = Path(sys.executable).parent / PROGRAM
    return shlex.join([*([str(script)] if script.is_file() else [sys.executable, "-m", PROGRAM]), *words])
