"""The hook `tensorboard_logs`: summaries of the user's own, after each epoch."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from experiments_manager.settings import Lazy
from experiments_manager.training.event_marks import drop_from, mark_epoch

if TYPE_CHECKING:
    from experiments_manager.runs import Run
    from experiments_manager.training.building import Experiment

logger = logging.getLogger(__name__)

FOLDER = "custom"
"""Folder in the run's `logs/`."""


class UserLogs:
    """Calls the hook with a summary writer as the default one, so that it just says `tf.summary.scalar(name, value)`.

    Args:
        experiment: What is trained.
        run: The run.
    """

    def __init__(self, experiment: Experiment, run: Run) -> None:
        self._experiment, self._run = experiment, run
        self._wanted = experiment.settings.tensorboard and experiment.settings.has("tensorboard_logs")
        self._writer: tf.summary.SummaryWriter | None = None
        self._is_writing = False
        self._last_epoch = 0

    @property
    def folder(self) -> Path:
        """Where the event files are."""
        return self._run.logs_dir / FOLDER

    def write(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Calls the hook, with the weights as they are validated and exported.

        Args:
            epoch: Number of the epoch that ended, counted from 1. What the hook gets is the step of summaries that
                name none.
            logs: Its loss and metrics.

        Raises:
            UserCodeError: If the hook raises.
        """
        if not self._wanted:
            return
        experiment = self._experiment
        validation = experiment.validation
        # Under its earlier name the hook counts from 0, as Keras' callbacks do.
        number = epoch - experiment.settings.has_earlier_name("tensorboard_logs")
        with self._default_writer(epoch, step=number):
            experiment.settings.call(
                "tensorboard_logs",
                model=experiment.model,
                epoch=number,
                logs=dict(logs),
                train_data=Lazy(experiment.train.as_dataset),
                validation_data=Lazy(lambda: validation.as_dataset() if validation else None),
                run=self._run,
            )

    @contextlib.contextmanager
    def _default_writer(self, epoch: int, step: int) -> Any:
        """A disk that cannot be written to costs these logs and nothing else."""
        if self._writer is None or epoch <= self._last_epoch:  # training went back to an earlier epoch
            self._open(epoch)
        self._last_epoch = epoch
        with self._writer.as_default(step=step):
            yield
        with contextlib.suppress(tf.errors.OpError):
            if self._is_writing:
                mark_epoch(self._writer, epoch)
            self._writer.flush()

    def _open(self, epoch: int) -> None:
        """Opens a file for what is written from an epoch on, and drops what was written of it before."""
        if self._writer is not None:
            self._writer.close()
        drop_from(self.folder, epoch)
        try:
            self._writer = tf.summary.create_file_writer(str(self.folder))
            self._is_writing = True
        except (OSError, tf.errors.OpError) as error:
            logger.warning("Summaries cannot be written to %s: %s. Training goes on without.", self.folder, error)
            self._writer, self._is_writing = tf.summary.create_noop_writer(), False
