"""What goes wrong with run folders, in sentences that say how to fix it."""

from __future__ import annotations

import errno
from pathlib import Path

from experiments_manager.common.errors import UserError
from experiments_manager.common.machine.disk_space import FULL


class RunError(UserError):
    """A run folder cannot be made, found, read, written or locked; the message is meant for the user."""


_REASONS = {
    **{code: (text, "Free some space, or choose another working_dir") for code, text in FULL.items()},
    errno.EROFS: ("the file system is read-only", "Choose a working_dir that can be written"),
    errno.EACCES: ("permission is denied", "Choose a working_dir that you may write, or change its permissions"),
    errno.EPERM: ("permission is denied", "Choose a working_dir that you may write, or change its permissions"),
    errno.ENOTDIR: ("a file stands where a folder is expected", "Move that file away, or choose another working_dir"),
    errno.EEXIST: ("a file stands where a folder is expected", "Move that file away, or choose another working_dir"),
    errno.ENAMETOOLONG: ("the path is too long", "Choose a shorter working_dir or session_name"),
}


def explain(error: OSError, action: str, path: Path) -> RunError:
    """Turn an error of the operating system into one clear sentence.

    Args:
        error: What the operating system said.
        action: What was attempted, e.g. `"make the run folder"`.
        path: Where it was attempted.

    Returns:
        The error to raise (`raise explain(...) from error`).
    """
    reason, remedy = _REASONS.get(error.errno or 0, (error.strerror or str(error), "Choose another working_dir"))
    return RunError(f"Cannot {action} {path}: {reason}. {remedy}.")
