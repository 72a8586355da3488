"""What a person at the terminal is told besides a command's output."""

from __future__ import annotations

import sys


def warn(text: str) -> None:
    """Write a sentence to standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
