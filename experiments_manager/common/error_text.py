"""What an error says, in one line for people."""

from __future__ import annotations

import re
import shutil

_TENSORFLOW_ADDS = re.compile(r"^\{\{function_node [^}]*\}\}\s*|\s*\[Op:\w+\].*$")
_NUMBER_OF_ERROR = re.compile(r"^\[Errno \d+\] ")


def reason(error: BaseException) -> str:
    """Return the first line of an error's text without what TensorFlow adds around it, and without a full stop.

    Of the many errors that copying a folder may collect, it gives the first.
    """
    text = str(error)
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list) and error.args[0]:
        text = _NUMBER_OF_ERROR.sub("", str(error.args[0][0][-1]))
    lines = text.strip().splitlines() or [type(error).__name__]
    return _TENSORFLOW_ADDS.sub("", lines[0]).rstrip(".")
