"""The figures that show a model at work, drawn once and given to everybody who wants them."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments_manager.common.error_text import reason
from experiments_manager.events import ModelView, Samples
from experiments_manager.monitoring.model_outputs import ModelOutput, read_model_outputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

MOST_SAMPLES = 10_000
LARGEST = 256 * 1024 * 1024
"""Bytes that samples, targets and outputs may take together; large samples are fewer therefore."""
FIRST_LOOK = 16
"""Samples that are read first, to know how large they are."""


class Picture:
    """A figure with a name; its PNG is made once."""

    def __init__(self, name: str, figure: Figure) -> None:
        """Keep a name and a figure."""
        self.name, self.figure = name, figure

    @functools.cached_property
    def png(self) -> bytes:
        """The figure as a PNG file."""
        from experiments_manager.monitoring.plots.canvas import encode

        return encode(self.figure, ".png")

    @functools.cached_property
    def svg(self) -> bytes:
        """The figure as an SVG file."""
        from experiments_manager.monitoring.plots.canvas import encode

        return encode(self.figure, ".svg")


class PredictionViews:
    """Draws what a model makes of its samples: confusion matrices or residuals, predictions, and mistakes.

    Several watchers ask for the same view; it is drawn for the first of them.
    """

    def __init__(self, class_names: Sequence[str] | None = None) -> None:
        """Remember how the classes are called."""
        self._class_names = class_names
        self._view: ModelView | None = None
        self._pictures: list[Picture] = []
        self._has_warned = False

    def pictures(self, view: ModelView) -> list[Picture]:
        """Draw a view; what cannot be drawn is left out, with a warning that says why."""
        if self._view is not view:
            self._view, self._pictures = view, self._draw(view)
        return self._pictures

    def _draw(self, view: ModelView) -> list[Picture]:
        try:
            samples = read_samples(view)
            answers = [] if samples is None else read_model_outputs(samples, self._class_names)
        except Exception as error:  # a model that is never called as a whole, for instance an adversarial one
            if not self._has_warned:
                self._has_warned = True
                logger.warning("Prediction figures cannot be drawn: %s", reason(error))
                logger.debug("traceback", exc_info=True)
            return []
        pictures = []
        for answer in answers:
            ending = f"_{answer.head}" if len(answers) > 1 else ""
            for name, draw in _figures_of(samples, answer):
                figure = _drawn(f"{name}{ending}", draw)
                if figure is not None:
                    pictures.append(Picture(f"{name}{ending}", figure))
        return pictures


def read_samples(view: ModelView) -> Samples | None:
    """Read as many samples as there is room for, 10,000 at most."""
    first = view.samples(FIRST_LOOK)
    if first is None:
        return None
    parts = [np.asarray(part) for part in _leaves((first.x, first.y, dict(first.outputs)))]
    count = len(parts[0]) if parts else 0
    if count < FIRST_LOOK:  # these are all
        return first
    each = sum(part.nbytes for part in parts) / count
    wanted = int(min(MOST_SAMPLES, LARGEST / max(each, 1.0)))
    return first if wanted <= FIRST_LOOK else view.samples(wanted)


def _leaves(nested: Any) -> Iterator[Any]:
    if isinstance(nested, dict):
        nested = list(nested.values())
    if isinstance(nested, (list, tuple)):
        for item in nested:
            yield from _leaves(item)
    elif nested is not None:
        yield nested


def _figures_of(samples: Samples, answer: ModelOutput) -> Iterator[tuple[str, Callable[[], Figure | None]]]:
    from experiments_manager.monitoring.plots.confusion import MOST_CLASSES, confusion_figure, confusion_matrix
    from experiments_manager.monitoring.plots.predictions import mistake_figure, prediction_figure
    from experiments_manager.monitoring.plots.residuals import residual_figure

    names = answer.class_names
    if answer.kind in ("classes", "masks") and len(names) <= MOST_CLASSES:
        known = (answer.truth >= 0) & (answer.truth < len(names))
        counts = confusion_matrix(answer.truth[known], answer.predicted[known], len(names))
        unit = {1: "samples", 2: "steps"}.get(answer.truth.ndim, "pixels")
        options = {"of": samples.split, "unit": unit}
        yield "confusion_matrix", lambda: confusion_figure(counts, names, **options)
        yield "confusion_matrix_normalised", lambda: confusion_figure(counts, names, normalised=True, **options)
    elif answer.kind not in ("classes", "masks", "labels"):
        yield "residuals", lambda: residual_figure(answer.truth, answer.predicted, samples.split)
    yield "predictions", lambda: prediction_figure(samples.x, answer)
    yield "mistakes", lambda: mistake_figure(samples.x, answer)


def _drawn(name: str, draw: Callable[[], Figure | None]) -> Figure | None:
    try:
        return draw()
    except Exception as error:  # whatever a user's data may be, it shall not end the run
        logger.warning("%s: it cannot be drawn: %s: %s.", name, type(error).__name__, error)
        logger.debug("traceback", exc_info=True)
        return None
