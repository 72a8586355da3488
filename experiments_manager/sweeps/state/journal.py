"""The journal of a sweep: one JSON object a line, appended and brought to the disk before anything follows from it.

A process that is killed while it appends leaves a last line that is cut off. Such a line never counted, so it is
removed when the journal is opened again. Every other damage is an error: what follows from it could not be trusted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments_manager.common.jsonl import append_line, from_line, split_lines, to_line
from experiments_manager.sweeps.errors import SweepError

Event = dict[str, Any]


def read_journal(file: Path) -> list[Event]:
    """Read all whole events; a last line that was cut off is left out.

    Raises:
        SweepError: The journal is damaged, or cannot be read.
    """
    events, _ = _read(file)
    return events


class Journal:
    """The journal, open for appending.

    Attributes:
        events: What was in it when it was opened.

    Raises:
        SweepError: It is damaged, or cannot be written.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.events, size = _read(file)
        try:
            self._descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.ftruncate(self._descriptor, size)
        except OSError as error:
            raise SweepError(
                f"{file} cannot be written: {error.strerror}. Fix that, then go on by --resume."
            ) from error
        self._size = size

    def append(self, event: Mapping[str, Any]) -> Event:
        """Add an event, whole or not at all.

        Returns:
            The event as a reader of the journal will see it.

        Raises:
            SweepError: It could not be written; the journal is what it was before.
        """
        line = to_line(event)
        try:
            append_line(self._descriptor, line)
        except OSError as error:
            os.ftruncate(self._descriptor, self._size)
            raise SweepError(
                f"{self._file} cannot be written: {error.strerror}. Fix that (free some space), then go on by --resume."
            ) from error
        self._size += len(line)
        return from_line(line)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def _read(file: Path) -> tuple[list[Event], int]:
    """Return all whole events, and the bytes that they take."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise SweepError(f"{file} cannot be read: {error.strerror}. Fix that, then run the command again.") from error
    lines, cut = split_lines(content)
    events = []
    for number, line in enumerate(lines, start=1):
        event = from_line(line)
        if event is None or "event" not in event:
            raise SweepError(
                f"{file}:{number}: the journal is damaged. Expected one JSON object a line. Restore it from a backup, "
                "or start a sweep of another name."
            )
        events.append(event)
    return events, len(content) - len(cut)
