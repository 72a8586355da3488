"""The hook `tensorboard_logs`: summaries of the user's own, after each epoch."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import tensorflow as tf

from experiments_manager.common.error_text import reason
from experiments_manager.settings import Lazy

if TYPE_CHECKING:
    from experiments_manager.runs import Run
    from experiments_manager.training.setup.experiment import Experiment


import struct
import time

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


logger = logging.getLogger(__name__)

FOLDER = "custom"
"""Folder in the run's `logs/` for what the hook writes."""
CALLBACKS_FOLDER = "callbacks"
"""Folder for what callbacks write, in files of a dialect that gives them a writer."""
_MOST_EVENTS = 1_000_000
_NEVER = 2**31 - 1
"""Milliseconds."""


class UserLogs:
    """Calls the hook with a summary writer as the default one, so that it just says `tf.summary.scalar(name, value)`.

    Callbacks find one, too, in files of a dialect that says so.

    Args:
        experiment: What is trained.
        run: The run.
    """

    def __init__(self, experiment: Experiment, run: Run) -> None:
        self._experiment, self._run = experiment, run
        settings = experiment.settings
        self.wanted = settings.tensorboard and settings.has("tensorboard_logs")
        self._wanted_by_callbacks = (
            settings.tensorboard and settings.dialect.logs_in_callbacks and bool(experiment.callbacks)
        )
        self._writer = EpochWriter(self.folder)
        self._writer_of_callbacks = EpochWriter(run.logs_dir / CALLBACKS_FOLDER)

    @property
    def folder(self) -> Path:
        """Where the event files are."""
        return self._run.logs_dir / FOLDER

    def write(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Call the hook, with the weights as they are validated and exported.

        Args:
            epoch: Number of the epoch that ended, counted from 1. What the hook gets is the step of summaries that
                name none.
            logs: Its loss and metrics.

        Raises:
            UserCodeError: If the hook raises.
        """
        if not self.wanted:
            return
        experiment = self._experiment
        validation = experiment.validation
        number = epoch - 1 + experiment.settings.first_epoch("tensorboard_logs")
        with self._writer.as_default(epoch, step=number):
            experiment.settings.call(
                "tensorboard_logs",
                model=experiment.model,
                epoch=number,
                logs=dict(logs),
                train_data=Lazy(experiment.train.as_dataset),
                validation_data=Lazy(lambda: validation.as_dataset() if validation else None),
                run=self._run,
            )

    def around_callbacks(self, epoch: int) -> contextlib.AbstractContextManager[None]:
        """Return what to be in while callbacks hear of the end of an epoch, counted from 1."""
        if not self._wanted_by_callbacks:
            return contextlib.nullcontext()
        return self._writer_of_callbacks.as_default(epoch, step=epoch - 1)


class EpochWriter:
    """Writes summaries epoch by epoch, so that a resume replaces those of epochs that are trained again.

    Args:
        folder: Is made with the first epoch.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: tf.summary.SummaryWriter | None = None
        self._last_epoch = 0
        self._lost_epochs = 0

    @contextlib.contextmanager
    def as_default(self, epoch: int, step: int) -> Iterator[None]:
        """Inside, `tf.summary` writes here. A disk that cannot be written to costs these logs and nothing else.

        Args:
            epoch: The epoch that ended, counted from 1; entered once for each.
            step: The step of summaries that name none.
        """
        if self._writer is None or epoch <= self._last_epoch:  # training went back to an earlier epoch
            self._guarded(lambda: self._open(epoch))
        self._last_epoch = epoch
        writer = self._writer or tf.summary.create_noop_writer()
        with writer.as_default(step=step):
            try:
                yield
            finally:
                # The end of the `with` block does it again, unless the writer was closed meanwhile. Had it to raise
                # there, this would be taken for an error of the training, and the writer would stay the default one.
                if self._writer is not None:
                    self._guarded(lambda: self._bring_out(epoch))
        if self._writer is None:
            self._lost_epochs += 1
        elif self._lost_epochs:
            logger.warning("Summaries are written to %s again; lost: %d epochs.", self._folder, self._lost_epochs)
            self._lost_epochs = 0

    def _open(self, epoch: int) -> None:
        """Open a file for what is written from an epoch on, and drop what was written of it before."""
        self._close()
        drop_from(self._folder, epoch)
        # The epoch's end brings all to the disk. Were that to happen before, its failure would look like the hook's.
        self._writer = tf.summary.create_file_writer(str(self._folder), max_queue=_MOST_EVENTS, flush_millis=_NEVER)

    def _bring_out(self, epoch: int) -> None:
        mark_epoch(self._writer, epoch)
        self._writer.flush()

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do what writes, or say once that it could not be done; the next epoch tries again with a new file."""
        try:
            work()
        except (OSError, tf.errors.OpError) as error:
            self._close()
            if not self._lost_epochs:
                logger.warning("Summaries cannot be written to %s: %s. Training goes on.", self._folder, reason(error))

    def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(OSError, tf.errors.OpError):
                writer.close()
