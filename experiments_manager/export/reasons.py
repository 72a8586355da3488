"""What an error says, in one line for people."""

from __future__ import annotations

import re

_TENSORFLOW_ADDS = re.compile(r"^\{\{function_node [^}]*\}\}\s*|\s*\[Op:\w+\].*$")


def reason(error: BaseException) -> str:
    """Gives the first line of an error's text without what TensorFlow adds around it, and without a full stop."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return _TENSORFLOW_ADDS.sub("", lines[0]).rstrip(".")
