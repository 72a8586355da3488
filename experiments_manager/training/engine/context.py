"""A run in the making: everything that the loop works with, in one record."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from experiments_manager.events import Watcher
from experiments_manager.export.publisher import Publisher
from experiments_manager.runs import Run
from experiments_manager.training.engine.callbacks import UserCallbacks
from experiments_manager.training.engine.chunk_size import ChunkSize
from experiments_manager.training.engine.exactness import of_callbacks
from experiments_manager.training.engine.steps import CompiledLoops
from experiments_manager.training.observe.step_statistics import Meter
from experiments_manager.training.observe.user_logs import UserLogs
from experiments_manager.training.observe.views import Viewer
from experiments_manager.training.setup.experiment import Experiment
from experiments_manager.training.state.checkpoints import CheckpointWriter

logger = logging.getLogger(__name__)


class Interrupted(Exception):
    """Training was asked to stop; raised at a step boundary, from which it can go on."""


@dataclasses.dataclass
class TrainingContext:
    """Everything that the loop works with."""

    experiment: Experiment
    run: Run
    callbacks: UserCallbacks
    checkpoints: CheckpointWriter
    publisher: Publisher | None
    watchers: list[Watcher]
    should_stop: Callable[[], bool]
    loops: CompiledLoops
    user_logs: UserLogs
    viewer: Viewer
    meter: Meter
    reset_metrics: Callable[[], None]
    chunk_size: ChunkSize = dataclasses.field(default_factory=ChunkSize)
    validation_chunk_size: ChunkSize = dataclasses.field(default_factory=ChunkSize)
    last_checkpoint_step: int = -1
    restored: str | None = None
    """Name of the checkpoint that was read last; to write it again would only risk it."""
    inexact_because: list[str] = dataclasses.field(default_factory=list)
    """Why a resume would not be exact, as far as it was said."""
    reloaded: Path | None = None
    """Checkpoint that training went back to last because the loss was no longer finite."""

    @classmethod
    def make(cls, experiment: Experiment, run: Run, **parts: Any) -> TrainingContext:
        """Compile the loops for an experiment."""
        meter = Meter(experiment)
        return cls(
            experiment=experiment,
            run=run,
            user_logs=UserLogs(experiment, run),
            viewer=Viewer(experiment),
            meter=meter,
            loops=CompiledLoops.of(experiment, meter.gradient_norm),
            reset_metrics=tf.function(experiment.model.reset_metrics, autograph=False),
            **parts,
        )

    def dispatch(self, event: str, *content: Any) -> None:
        """Tell every watcher; one that fails is told nothing more, and the run goes on."""
        for watcher in list(self.watchers):
            try:
                getattr(watcher, event)(*content)
            except Exception as error:
                self.watchers.remove(watcher)
                logger.warning("%s failed and is left out from here on: %s", type(watcher).__name__, error)
                logger.debug("traceback", exc_info=True)


def new_reasons(context: TrainingContext) -> list[str]:
    """Why a resume would not be exact, as far as it came up since the run began: what callbacks have got meanwhile."""
    return [reason for reason in of_callbacks(context.callbacks) if reason not in context.inexact_because]
