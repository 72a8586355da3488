"""Is a disk full? TensorFlow says it in words, Python by a number."""

from __future__ import annotations

import errno
import os

_CODES = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: BaseException) -> bool:
    """Return whether an error says that there is no space left, or that a quota is used up."""
    if isinstance(error, OSError):
        return error.errno in _CODES
    return any(os.strerror(code) in str(error) for code in _CODES)
