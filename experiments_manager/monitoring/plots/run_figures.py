"""`figures/`: what a finished run looks like, or an evaluation of it, as files that need no browser."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from experiments_manager.common.atomic import write_bytes
from experiments_manager.events import ModelView, RunEnd, Watcher
from experiments_manager.monitoring.metrics_csv import read_rows
from experiments_manager.monitoring.prediction_views import Picture, PredictionViews
from experiments_manager.runs import Run, RunError
from experiments_manager.runs.run import EPOCH

logger = logging.getLogger(__name__)

FOLDER = "figures"


class Figures(Watcher):
    """Draws curves, confusion matrix or residuals, and predictions, once the run is finished."""

    def __init__(self, run_dir: Path | str, views: PredictionViews) -> None:
        """Remember where to write; nothing is touched before the run is finished.

        Args:
            run_dir: The run folder, with its `metrics.csv`.
            views: Draws the model.
        """
        self._run_dir, self._views = Path(run_dir), views
        self._has_drawn = False

    def on_best(self, view: ModelView) -> None:
        """Draw and write all; what cannot be drawn or written is told once, and the run is fine without."""
        self._has_drawn = True
        self._write([*_curves(self._run_dir, view.epoch), *self._views.pictures(view)])

    def on_end(self, end: RunEnd) -> None:
        """Draw the curves of a run that is finished but has no best epoch."""
        if end.state == "finished" and not self._has_drawn:
            self._write(list(_curves(self._run_dir, None)))

    def _write(self, pictures: Sequence[Picture]) -> None:
        folder = self._run_dir / FOLDER
        try:
            folder.mkdir(exist_ok=True)
            for picture in pictures:
                write_bytes(folder / f"{picture.name}.png", picture.png)
                write_bytes(folder / f"{picture.name}.svg", picture.svg)
        except OSError as error:
            logger.warning("Figures cannot be written to %s: %s. The run is fine without.", folder, error.strerror)


def draw_confusion(
    run_dir: Path, name: str, truth: np.ndarray, predicted: np.ndarray, class_names: Sequence[str] | None
) -> Path | None:
    """Draw a confusion matrix into `figures/`.

    Args:
        run_dir: The run folder.
        name: Of the file, with its ending.
        truth: True classes, int `[samples]`; samples of a negative one do not count.
        predicted: Predicted classes, int `[samples]`.
        class_names: Name of each class; classes without one bear their number.

    Returns:
        The picture; `None` where there are no samples, too many classes, or the disk refuses.
    """
    from experiments_manager.monitoring.plots.canvas import encode
    from experiments_manager.monitoring.plots.confusion import MOST_CLASSES, confusion_figure, confusion_matrix

    known = truth >= 0  # the loss may ignore those of class -1
    truth, predicted = truth[known], predicted[known]
    if not len(truth):
        return None
    classes = int(max(truth.max(), predicted.max())) + 1
    names = list(class_names or [])
    names += [str(number) for number in range(len(names), classes)]
    if len(names) > MOST_CLASSES:
        return None
    figure = confusion_figure(confusion_matrix(truth, predicted, len(names)), names)
    path = run_dir / FOLDER / name
    try:
        path.parent.mkdir(exist_ok=True)
        write_bytes(path, encode(figure, path.suffix))
    except OSError as error:
        logger.warning("No confusion matrix is drawn: %s cannot be written: %s.", path, error.strerror)
        return None
    return path


def _curves(run_dir: Path, best_epoch: int | None) -> Iterator[Picture]:
    from experiments_manager.monitoring.plots.curves import LearningCurves, learning_curves, learning_rate_curve

    _, rows = read_rows(run_dir / "metrics.csv")
    if not rows:
        return
    unit = EPOCH
    with contextlib.suppress(RunError):
        unit = Run(run_dir).unit
    curves = LearningCurves.from_rows(run_dir.name, rows, best_epoch, unit=unit)
    yield Picture("learning_curves", learning_curves(curves))
    yield Picture("learning_rate", learning_rate_curve(curves))
