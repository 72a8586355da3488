"""What the command line's exit codes mean, in one table; scripts and cluster jobs may rely on it."""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """How a command ended. A second Ctrl-C ends the process by its signal, which shells show as 130."""

    DONE = 0
    BUG = 1
    BAD_INPUT = 2
    USER_CODE_FAILED = 3
    INTERRUPTED = 75


MEANINGS = {
    ExitCode.DONE: "done",
    ExitCode.BUG: "a fault of experiments_manager itself",
    ExitCode.BAD_INPUT: "bad input: command line, settings, data, devices or run folder; a disk that stays full",
    ExitCode.USER_CODE_FAILED: "the experiment failed: its code raised, or its loss became NaN or infinite",
    ExitCode.INTERRUPTED: "interrupted by a signal; the run can be resumed",
}


def table() -> str:
    """Return the exit codes as text for a terminal."""
    return "\n".join(f"{code.value:>4}  {meaning}" for code, meaning in MEANINGS.items())
