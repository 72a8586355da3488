"""How errors are told on the terminal: one clear message each, and a traceback only with `--debug`."""

from __future__ import annotations

import errno
import linecache
import traceback

import typer

from experiments_manager.common.errors import UserError
from experiments_manager.common.exit_codes import ExitCode
from experiments_manager.common.machine.disk_space import FULL

_OUTSIDE_CAUSES = (
    *FULL,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EMFILE,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)
"""Errors of the operating system for which neither we nor the user's code can be blamed."""


def report(error: Exception, *, debug: bool = False) -> ExitCode:
    """Say on standard error what went wrong.

    Args:
        error: What was raised.
        debug: Whether to show Python's traceback.

    Returns:
        The exit code that belongs to it.
    """
    if debug:
        traceback.print_exception(error)
    code, text = _explain(error)
    typer.secho(text, err=True, fg=typer.colors.RED)
    return code


def _explain(error: Exception) -> tuple[ExitCode, str]:
    from experiments_manager.settings import UserCodeError

    if isinstance(error, UserCodeError):
        return error.exit_code, "\n".join([str(error), *_source_line(error.location)])
    if isinstance(error, UserError):
        return error.exit_code, str(error)
    if isinstance(error, OSError) and error.errno in _OUTSIDE_CAUSES:
        return ExitCode.BAD_INPUT, f"{error}. Fix that, then run the command again."
    kind = type(error).__name__
    return ExitCode.BUG, (
        f"{kind}: {error}\n"
        "This is a fault of experiments_manager. Please report it, with what the same command prints with --debug."
    )


def _source_line(location: str) -> list[str]:
    """Return the line of the user's code at `file:line`, where it can be read."""
    file, _, line = location.rpartition(":")
    text = linecache.getline(file, int(line)).strip() if line.isdigit() else ""
    return [f"    {text}"] if text else []
