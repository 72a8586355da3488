"""TensorBoard logs: scalars of training and validation on one chart, hparams, and texts.

    logs/              hparams with the state that the run ended in, texts (settings, hparams)
    logs/train/        loss and metrics, learning_rate, epoch_seconds
    logs/validation/   loss and metrics, under the same names

The step of every scalar is the epoch. Events are written as TFRecords, which is what an event file is: some 10 us an
event, against 100 us a scalar for `tf.summary`. Each event is handed to the operating system at once, so that a killed
process loses none.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments_manager.training.events import EpochReport, RunEnd, RunStart, Watcher

logger = logging.getLogger(__name__)

RETRY_SECONDS = 30.0
VALIDATION_PREFIX = "val_"


class TensorBoardLogs(Watcher):
    """Writes what TensorBoard shows of one run."""

    def __init__(self, logs_dir: Path | str, texts: Mapping[str, str] | None = None) -> None:
        """Remember where to write; nothing is touched before the run starts.

        Args:
            logs_dir: The folder `logs/` of a run.
            texts: Name and content of what the text page shows beside the hparams, in Markdown (see `code_block`).
        """
        self._logs_dir = Path(logs_dir)
        self._texts = dict(texts or {})
        self._files: dict[str, EventFile] = {}

    def on_start(self, start: RunStart) -> None:
        """Open the files. After a resume, what was logged from `start.first_epoch` on no longer counts."""
        from tensorboard.plugins.hparams import summary_v2 as hparams_plugin

        self._files = {
            "": EventFile(self._logs_dir, first_step=0, suffix=".run"),
            "train": EventFile(self._logs_dir / "train", start.first_epoch),
            "validation": EventFile(self._logs_dir / "validation", start.first_epoch),
        }
        hparams = {name: hparam_value(value) for name, value in start.hparams.items()}
        self._files[""].write(hparams_plugin.hparams_pb(hparams, trial_id=start.run_dir.name), step=0)
        for name, text in {"hparams": _as_table(hparams), **self._texts}.items():
            self.write_text(name, text)
        # TensorBoard keeps the first state that it finds, so the files of the sessions before a resume must go.
        self._files[""].remove_earlier()

    def on_epoch(self, report: EpochReport) -> None:
        """Write the values of one epoch."""
        train = {name: value for name, value in report.logs.items() if not name.startswith(VALIDATION_PREFIX)}
        validation = {
            name.removeprefix(VALIDATION_PREFIX): value
            for name, value in report.logs.items()
            if name.startswith(VALIDATION_PREFIX)
        }
        train.update(learning_rate=report.learning_rate, epoch_seconds=report.seconds)
        self.write_scalars("train", train, report.epoch)
        if validation:
            self.write_scalars("validation", validation, report.epoch)

    def on_end(self, end: RunEnd) -> None:
        """Write the state that the run ended in, and close the files."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import api_pb2
        from tensorboard.plugins.hparams.summary import session_end_pb

        statuses = {"finished": api_pb2.STATUS_SUCCESS, "failed": api_pb2.STATUS_FAILURE}
        if self._files:
            ended = session_end_pb(statuses.get(end.state, api_pb2.STATUS_UNKNOWN))  # TensorFlow's class of Summary.
            self._files[""].write(Summary.FromString(ended.SerializeToString()), step=0)
        for file in self._files.values():
            file.close()
        self._files = {}

    def write_scalars(self, group: str, values: Mapping[str, float], epoch: int) -> None:
        """Write scalars between `on_start` and `on_end`.

        Args:
            group: `train` or `validation`; scalars of the same name share a chart.
            values: Name and value of each.
            epoch: Counted from 1.
        """
        self._files[group].write(scalars_summary(values), epoch)

    def write_text(self, name: str, markdown: str, epoch: int = 0) -> None:
        """Show a text in Markdown, between `on_start` and `on_end`."""
        from tensorboard.plugins.text.summary_v2 import text_pb

        self._files[""].write(text_pb(name, markdown), epoch)


class EventFile:
    """One event file, made when the first event comes. A full disk stops the logs but not the run."""

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
        self._retry_at = 0.0
        self._has_warned = False

    def write(self, summary: Any, step: int) -> None:
        """Append a `Summary` protocol buffer and flush it, or say once that it could not be done."""
        import tensorflow as tf
        from tensorboard.compat.proto.event_pb2 import Event

        if time.monotonic() < self._retry_at:
            return
        try:
            if self._writer is None:
                self._open()
            self._append(Event(wall_time=time.time(), step=step, summary=summary))
            self._first_step = step + 1  # Should this file fail, the next one supersedes nothing of what it holds.
        except (OSError, tf.errors.OpError) as error:
            self._give_up_for_now(error)

    def remove_earlier(self) -> None:
        """Remove the files of earlier sessions that have the same suffix, once this session has its own."""
        if self._writer is None or not self._suffix:
            return
        for path in self._folder.glob(f"events.out.tfevents.*{self._suffix}"):
            if path != self._path:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self) -> None:
        import tensorflow as tf
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        self._folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names: time first, so that a resume comes later.
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        began = f"{seconds:010d}.{nanoseconds:09d}"
        self._path = self._folder / f"events.out.tfevents.{began}.{socket.gethostname()}.{os.getpid()}{self._suffix}"
        self._writer = tf.io.TFRecordWriter(str(self._path))
        self._append(Event(wall_time=time.time(), file_version="brain.Event:2"))
        # From the second such mark on, TensorBoard drops all events before it whose step is this one or higher.
        restart = SessionLog(status=SessionLog.START)
        self._append(Event(wall_time=time.time(), step=self._first_step, session_log=restart))

    def _append(self, event: Any) -> None:
        self._writer.write(event.SerializeToString())
        self._writer.flush()

    def _give_up_for_now(self, error: Exception) -> None:
        """Leave the file, whose last record may be torn; a later event begins a new one."""
        import tensorflow as tf

        with contextlib.suppress(OSError, tf.errors.OpError):
            self.close()
        self._writer = None
        self._retry_at = time.monotonic() + RETRY_SECONDS
        if not self._has_warned:
            logger.warning("TensorBoard logs cannot be written to %s: %s. Training goes on.", self._folder, error)
            self._has_warned = True


def scalars_summary(values: Mapping[str, float]) -> Any:
    """Make one `Summary` of several scalars.

    Plain values rather than tensors: every reader knows them, and drops them alike when they are superseded.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=[Summary.Value(tag=name, simple_value=float(value)) for name, value in values.items()])


def hparam_value(value: Any) -> bool | int | float | str:
    """Give what the HParams page can show: bool, number or text; `None`, lists and all else become text."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, default=str)
    return str(value)


def code_block(code: str, language: str = "python") -> str:
    """Set code in Markdown, so that TensorBoard's text page keeps its lines."""
    return f"```{language}\n{code}\n```"


def _as_table(values: Mapping[str, Any]) -> str:
    rows = [f"| {name} | {str(value).replace('|', chr(92) + '|')} |" for name, value in values.items()]
    return "\n".join(["| hparam | value |", "| --- | --- |", *rows])
