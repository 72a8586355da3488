"""What an error says, in one line for people."""

from __future__ import annotations

import re
import shutil

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_TENSORFLOW_ADDS = re.compile(r"^\{\{function_node [^}]*\}\}\s*|\s*\[Op:\w+\].*$")
_NUMBER_OF_ERROR = re.compile(r"^\[Errno \d+\] ")
_PYTHON_ERROR = re.compile(r"[\w.]*(Error|Exception|Warning|Interrupt):")
_AROUND = (
    "Arguments received", "Exception encountered when calling", "•",  # Keras
    "Graph execution error", "Detected at node", "<stack traces", "[[", "in user code:",  # TensorFlow
    'File "', "Traceback (most recent call last)",
)  # fmt: skip
"""Beginnings of lines that libraries write around what is wrong."""


def reason(error: BaseException | str) -> str:
    """Return the line of an error's text that says what is wrong, without a full stop.

    What Keras and TensorFlow write around it goes, and so do the colours of a terminal. Where a text quotes an error of
    Python's, that is the line; of the many errors that copying a folder may collect, it is the first.

    Args:
        error: The error, or its text.
    """
    text = str(error)
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list) and error.args[0]:
        text = _NUMBER_OF_ERROR.sub("", str(error.args[0][0][-1]))
    lines = [_TENSORFLOW_ADDS.sub("", line.strip()) for line in _COLOURS.sub("", text).splitlines() if line.strip()]
    lines = lines or [type(error).__name__]
    telling = [line for line in lines if line and not line.startswith(_AROUND)] or lines
    return next(filter(_PYTHON_ERROR.match, telling), telling[0]).rstrip(".:")


def named_reason(error: BaseException) -> str:
    """Return the kind of an error and what it says (`reason`); of one that says nothing its kind alone."""
    name, text = type(error).__name__, reason(error)
    return name if text == name else f"{name}: {text}"
