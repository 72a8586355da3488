"""What all errors that are meant for the user have in common."""

from __future__ import annotations

from experiments_manager.common.exit_codes import ExitCode


class UserError(Exception):
    """An error whose message tells the user what is wrong and how to fix it; the command line shows no traceback.

    Attributes:
        exit_code: What a command ends with that this error stopped.
    """

    exit_code: ExitCode = ExitCode.BAD_INPUT


class CommandLineError(UserError):
    """A command line that cannot be understood; the message says why."""
