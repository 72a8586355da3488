"""Marks in event files that say which epoch ended there, so that a resume can drop what it will write again.

The user chooses the steps of such summaries freely, so TensorBoard's own way of superseding, by step, does not fit.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from experiments_manager.compat.tensorflow import write_event

PATTERN = "events.out.tfevents.*"
_LENGTH = struct.Struct("<Q")
_CHECKSUM = 4
"""Bytes of the checksums that follow a TFRecord's length, and its content."""
_MARK = tf.compat.v1.SessionLog.CHECKPOINT


def mark_epoch(writer: tf.summary.SummaryWriter, epoch: int) -> None:
    """Write that an epoch ended here; TensorBoard passes such events over."""
    log = tf.compat.v1.SessionLog(status=_MARK)
    event = tf.compat.v1.Event(wall_time=time.time(), step=epoch, session_log=log)
    write_event(writer, event.SerializeToString())


def drop_from(folder: Path, epoch: int) -> None:
    """Drop what was written from an epoch on, counted from 1, and a last record that was cut off.

    Args:
        folder: Holds event files with marks, one a session, their names in the order of time.
        epoch: The first epoch that will be written again.
    """
    for file in sorted(folder.glob(PATTERN)):
        with contextlib.suppress(OSError):
            kept = max((end for end, marked in _marks(file) if marked < epoch), default=0)
            if kept == 0:
                file.unlink()
            elif kept < file.stat().st_size:
                with file.open("rb+") as stream:
                    stream.truncate(kept)


def _marks(file: Path) -> Iterator[tuple[int, int]]:
    """Yield the end of each mark in bytes, with its epoch."""
    content = memoryview(file.read_bytes())
    start = 0
    while start + _LENGTH.size <= len(content):
        begin = start + _LENGTH.size + _CHECKSUM
        length = _LENGTH.unpack_from(content, start)[0]
        start = begin + length + _CHECKSUM
        if start > len(content):
            return
        if length < 64:  # a mark is short
            event = tf.compat.v1.Event.FromString(bytes(content[begin : begin + length]))
            if event.HasField("session_log") and event.session_log.status == _MARK:
                yield start, event.step
