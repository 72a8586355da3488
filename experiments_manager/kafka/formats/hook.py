"""Records that a function of the user decodes."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments_manager.common.errors import UserError
from experiments_manager.kafka.errors import RecordError

_PACKAGE = str(Path(__file__).resolve().parents[2]) + os.sep


def reader_of(hook: Callable[[bytes], Any]) -> Callable[[bytes], list[Any]]:
    """Return a function that reads the one sample of a record by the hook, and names the place where it fails."""

    def read(record: bytes) -> list[Any]:
        try:
            return [hook(record)]
        except UserError as error:  # of a hook that is called by way of the settings, which name its place
            raise RecordError(str(error)) from error
        except Exception as error:
            raise RecordError(f"kafka_decode failed: {_place_of(error)}{type(error).__name__}: {error}") from error

    return read


def _place_of(error: Exception) -> str:
    """Return `file:line: ` of the user's line that failed; it may have called a library."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_PACKAGE)]
    of_user = [frame for frame in frames if frame.filename == frames[0].filename]
    return f"{of_user[-1].filename}:{of_user[-1].lineno}: " if of_user else ""
