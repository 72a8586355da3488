"""The watchers of a run, as its settings choose them."""

from __future__ import annotations

import logging

from experiments_manager.events import Watcher
from experiments_manager.monitoring.metrics_csv import MetricsCsv
from experiments_manager.monitoring.plots.run_figures import Figures
from experiments_manager.monitoring.prediction_views import PredictionViews
from experiments_manager.monitoring.progress_bar import terminal_progress
from experiments_manager.monitoring.tensorboard.image_summaries import Images
from experiments_manager.monitoring.tensorboard.profile import StepProfile
from experiments_manager.monitoring.tensorboard.projector import Projector
from experiments_manager.monitoring.tensorboard.scalars import TensorBoardLogs
from experiments_manager.monitoring.tensorboard.texts import run_texts
from experiments_manager.runs import Run
from experiments_manager.settings import Settings
from experiments_manager.settings.schema import SETTINGS

logger = logging.getLogger(__name__)


def watchers_of(run: Run, settings: Settings, *, quiet: bool = False) -> list[Watcher]:
    """Make the watchers of a run: `metrics.csv`, TensorBoard, figures, MLflow and the terminal.

    Args:
        run: The run, which has its folder already.
        settings: What is to be written.
        quiet: Whether the terminal shows messages alone.
    """
    chosen: list[Watcher] = [MetricsCsv(run.metrics_csv)]
    if settings.tensorboard:
        chosen += _tensorboard(run, settings)
    if settings.profile:
        chosen.append(StepProfile(run.logs_dir))
    chosen += _pictures(run, settings)
    if settings.mlflow:  # after those that write what it logs
        chosen.append(_mlflow(run, settings))
    chosen.append(MessagesOnly() if quiet else terminal_progress())
    return chosen


class MessagesOnly(Watcher):
    """A watcher that logs messages, such as of an export that failed, and shows no progress."""

    def on_message(self, text: str) -> None:
        """Log the text as a warning."""
        logger.warning("%s", text)


def _tensorboard(run: Run, settings: Settings) -> list[Watcher]:
    logs = TensorBoardLogs(
        run.logs_dir,
        run_texts(run),
        by_step=settings.log_every_steps is not None,
        histogram_every=settings.histogram_every,
        further_hparams=settings.hparams_ext,
    )
    if settings.embeddings == []:
        return [logs]
    projector = Projector(
        run.logs_dir,
        layers=settings.embeddings,
        every=settings.embeddings_every,
        samples=settings.embeddings_samples,
        class_names=settings.class_names,
    )
    return [logs, projector]


def _pictures(run: Run, settings: Settings) -> list[Watcher]:
    """Make the watchers that draw what the model does, for TensorBoard and into `figures/`."""
    views = PredictionViews(settings.class_names)
    images = [Images(run.logs_dir, views, settings.images_every)] if settings.tensorboard else []
    return [*images, *([Figures(run.path, views)] if settings.figures else [])]


def _mlflow(run: Run, settings: Settings) -> Watcher:
    from experiments_manager.monitoring.mlflow import MlflowLog  # an extra of its own

    return MlflowLog(run, settings.values(), {name: entry.default for name, entry in SETTINGS.items()})
