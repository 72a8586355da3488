"""Event files, which TensorBoard reads.

Events are written as TFRecords, which is what an event file is: some 10 us an event, against 100 us a scalar for
`tf.summary`. Each event is handed to the operating system at once, so that a killed process loses none.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

RETRY_SECONDS = 30.0
MOST_BYTES_WAITING = 8 * 1024 * 1024
"""What one file keeps in memory while its disk is full; the oldest events go first."""


class EventFile:
    """One event file, made when the first event comes.

    A full disk stops neither the run nor the logs: events wait until there is room.
    """

    def __init__(self, folder: Path, first_step: int, suffix: str = "") -> None:
        """Remember where to write.

        Args:
            folder: Made if it is missing; may hold the files of earlier sessions.
            first_step: Events of earlier sessions from this step on are superseded.
            suffix: End of the file's name.
        """
        self._folder = folder
        self._first_step = first_step
        self._suffix = suffix
        self._path: Path | None = None
        self._writer: Any = None
        self._waiting: collections.deque[tuple[int, bytes]] = collections.deque()
        self._lost = 0
        self._is_wanted = False
        """Whether there has to be a file, if only to supersede earlier ones."""
        self._replaces_files = False
        self._retry_at = 0.0
        self._has_warned = False

    def write(self, summary: Any, step: int) -> None:
        """Append a `Summary` protocol buffer and flush it, or say once that it could not be done."""
        self._write(step, summary=summary)

    def write_graph(self, graph_def: bytes) -> None:
        """Append a serialised `GraphDef`, for the Graphs page."""
        self._write(0, graph_def=graph_def)

    def restart(self, step: int) -> None:
        """Supersede what was written from `step` on, in this session too."""
        self._first_step = step
        self._waiting = collections.deque(event for event in self._waiting if event[0] < step)
        if self._writer is not None:
            self._guarded(self._mark_restart)

    def supersede_previous(self) -> None:
        """Supersede what earlier sessions wrote from `first_step` on even if this one writes nothing more."""
        if self._folder.is_dir():
            self._is_wanted = True
            self._guarded(self._write_waiting)

    def remove_previous(self) -> None:
        """Remove the files of earlier sessions that have the same suffix, once this session has its own."""
        self._replaces_files = bool(self._suffix)
        if self._writer is not None:
            self._guarded(self._remove_previous)

    def close(self) -> None:
        """Write what waits, or say how much is lost, and close the file."""
        self._retry_at = 0.0
        if self._waiting or self._is_wanted:
            self._guarded(self._write_waiting)
        self._lost += len(self._waiting)
        self._waiting.clear()
        if self._lost:
            logger.warning(
                "TensorBoard logs in %s lack %s, which could not be written.", self._folder, _events(self._lost)
            )
        self._lost = 0
        self._close()

    def _write(self, step: int, **content: Any) -> None:
        from experiments_manager.compat.tensorboard import Event

        self._waiting.append((step, Event(wall_time=time.time(), step=step, **content).SerializeToString()))
        while sum(len(event) for _, event in self._waiting) > MOST_BYTES_WAITING:
            self._waiting.popleft()
            self._lost += 1
        self._guarded(self._write_waiting)

    def _write_waiting(self) -> None:
        if self._writer is None:
            self._open()
        while self._waiting:
            step, event = self._waiting[0]
            self._append(event)
            self._waiting.popleft()
            self._first_step = step + 1  # Should this file fail, the next one supersedes nothing of what it holds.

    def _open(self) -> None:
        import tensorflow as tf

        from experiments_manager.compat.tensorboard import Event

        self._folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names: time first, so that a resume comes later.
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        began = f"{seconds:010d}.{nanoseconds:09d}"
        self._path = self._folder / f"events.out.tfevents.{began}.{socket.gethostname()}.{os.getpid()}{self._suffix}"
        self._writer = tf.io.TFRecordWriter(str(self._path))
        self._append(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
        self._mark_restart()
        self._is_wanted = False
        if self._replaces_files:
            self._remove_previous()

    def _mark_restart(self) -> None:
        from experiments_manager.compat.tensorboard import Event, SessionLog

        # From the second such mark on, TensorBoard drops all events before it whose step is this one or higher.
        restart = SessionLog(status=SessionLog.START)
        self._append(Event(wall_time=time.time(), step=self._first_step, session_log=restart).SerializeToString())

    def _remove_previous(self) -> None:
        for path in self._folder.glob(f"events.out.tfevents.*{self._suffix}"):
            if path != self._path:
                path.unlink(missing_ok=True)

    def _append(self, event: bytes) -> None:
        self._writer.write(event)
        self._writer.flush()

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do what writes, or say once that it could not be done; after a failure, only some time later."""
        import tensorflow as tf

        if time.monotonic() < self._retry_at:
            return
        try:
            work()
        except (OSError, tf.errors.OpError) as error:
            self._suspend_writing(error)
        else:
            self._report_recovery()

    def _suspend_writing(self, error: Exception) -> None:
        """Leave the file, whose last record may be torn; a later event begins a new one."""
        self._close()
        self._remove_if_empty()
        self._retry_at = time.monotonic() + RETRY_SECONDS
        if not self._has_warned:
            logger.warning(
                "TensorBoard logs cannot be written to %s: %s. Training goes on; the events are kept.",
                self._folder,
                error,
            )
            self._has_warned = True

    def _report_recovery(self) -> None:
        if self._has_warned:
            lost = _events(self._lost) if self._lost else "nothing"
            logger.warning("TensorBoard logs are written to %s again; lost: %s.", self._folder, lost)
        self._has_warned, self._lost = False, 0

    def _close(self) -> None:
        import tensorflow as tf

        if self._writer is not None:
            with contextlib.suppress(OSError, tf.errors.OpError):
                self._writer.close()
            self._writer = None

    def _remove_if_empty(self) -> None:
        with contextlib.suppress(OSError):
            if self._path is not None and self._path.stat().st_size == 0:
                self._path.unlink()


def _events(number: int) -> str:
    return f"{number} event{'' if number == 1 else 's'}"


def scalars_summary(values: Mapping[str, float]) -> Any:
    """Make one `Summary` of several scalars.

    Plain values rather than tensors: every reader knows them, and drops them alike when they are superseded.
    """
    from experiments_manager.compat.tensorboard import Summary

    return Summary(value=[Summary.Value(tag=name, simple_value=float(value)) for name, value in values.items()])
