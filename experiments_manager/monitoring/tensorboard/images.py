"""Pictures in TensorBoard: confusion matrix, predictions, and what the user's metrics draw.

Those of single epochs stand in `logs/images`, those of the best weights in `logs/best`, each in event files of its own:
so a resume supersedes just what it shows again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from experiments_manager.events import EpochReport, ModelView, Rollback, RunEnd, RunStart, Watcher
from experiments_manager.monitoring.prediction_views import PredictionViews
from experiments_manager.monitoring.tensorboard.event_files import EventFile
from experiments_manager.monitoring.tensorboard.summary_images import images_of, png_size

logger = logging.getLogger(__name__)


class Images(Watcher):
    """Writes image summaries."""

    in_background = True

    def __init__(self, logs_dir: Path | str, views: PredictionViews, every: int | None = None) -> None:
        """Remember where to write; nothing is touched before there is a picture.

        Args:
            logs_dir: The folder `logs/` of a run.
            views: Draws the pictures.
            every: Epochs from one set of pictures to the next; `None` for those of the best weights alone. What the
                metrics draw is shown after every epoch.
        """
        self._logs_dir, self._views, self._every = Path(logs_dir), views, every
        self._file: EventFile | None = None
        self._drawn: dict[int, Any] = {}
        """Summaries by epoch, drawn while its weights are in place and written when it has ended."""
        self._blamed: set[str] = set()

    def on_start(self, start: RunStart) -> None:
        """Supersede what earlier sessions wrote of the epochs that are trained again."""
        self._file = EventFile(self._logs_dir / "images", start.first_epoch)
        self._file.supersede_previous()

    def on_rollback(self, to: Rollback) -> None:
        """Supersede what was written of the epochs that are trained again."""
        if self._file is not None:
            self._file.restart(to.epoch)

    def on_validated(self, view: ModelView) -> None:
        """Draw what the metrics show and, every so many epochs, the pictures of the model."""
        images = dict(self._metric_images(view.metrics))
        if self._every is not None and view.epoch % self._every == 0:
            images |= {picture.name: picture.png for picture in self._views.pictures(view)}
        if images:
            self._drawn[view.epoch] = images_summary(images)

    def on_epoch(self, report: EpochReport) -> None:
        """Write what was drawn."""
        summary = self._drawn.pop(report.epoch, None)
        if summary is not None and self._file is not None:
            self._file.write(summary, report.epoch)

    def on_best(self, view: ModelView) -> None:
        """Write the pictures of the best weights, in the place of those of earlier sessions."""
        images = {picture.name: picture.png for picture in self._views.pictures(view)}
        if images:
            file = EventFile(self._logs_dir / "best", first_step=0)
            file.write(images_summary(images), view.epoch)
            file.close()

    def on_end(self, end: RunEnd) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _metric_images(self, metrics: Iterable[Any]) -> Iterator[tuple[str, bytes]]:
        for metric in _with_images(metrics):
            try:
                yield from list(images_of(metric.get_image_summary(), metric.name))
            except Exception as error:  # it is the user's code
                if metric.name not in self._blamed:
                    self._blamed.add(metric.name)
                    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
                    logger.warning("metrics: get_image_summary of %s gave no picture. %s", metric.name, text)
                    logger.debug("traceback", exc_info=True)


def images_summary(images: dict[str, bytes]) -> Any:
    """Make one `Summary` of several PNG files by name."""
    from experiments_manager.compat.tensorboard import Summary

    values = []
    for name, png in images.items():
        width, height = png_size(png)
        image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=png)
        values.append(Summary.Value(tag=name, image=image))
    return Summary(value=values)


def _with_images(metrics: Iterable[Any]) -> Iterator[Any]:
    """Find the metrics that draw; Keras keeps those given to `compile` in containers."""
    for metric in metrics:
        if callable(getattr(metric, "get_image_summary", None)):
            yield metric
        else:
            inner = getattr(metric, "metrics", None)
            if isinstance(inner, (list, tuple)):
                yield from _with_images(inner)
