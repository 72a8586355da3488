"""Pictures in TensorBoard: confusion matrix, predictions, and what the user's metrics draw.

Those of single epochs stand in `logs/images`, those of the best weights in `logs/best`, each in event files of its own:
so a resume supersedes just what it shows again.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments_manager.events import EpochReport, ModelView, Rollback, RunEnd, RunStart, Watcher
from experiments_manager.monitoring.prediction_views import PredictionViews
from experiments_manager.monitoring.tensorboard.event_files import EventFile

EXPECTED = (
    "an image of shape [height, width], [height, width, channels] or [n, height, width, channels] with 1, 3 or 4 "
    "channels, as bytes or as floats in 0..1, a matplotlib Figure, or a dict of these by name"
)
MOST_IN_BATCH = 8
_BRIGHTEST = 2.0
"""Floats in 0..1 may be a little above 1, as filters and rounding make them."""


def images_of(given: Any, name: str) -> Iterator[tuple[str, bytes]]:
    """Turn an image in any of the usual forms into PNG files.

    Args:
        given: See `EXPECTED`; a tensor of TensorFlow will do as well. `None` gives nothing.
        name: What it is called.

    Yields:
        Name and PNG. The entries of a dict and, where there are several, the images of a batch have names of their
        own, such as `name/entry` and `name/0`.

    Raises:
        ValueError: It is something else.
    """
    if given is None:
        return
    if isinstance(given, Mapping):
        for key, value in given.items():
            yield from images_of(value, f"{name}/{key}")
    elif hasattr(given, "savefig"):
        yield name, _figure_png(given)
    else:
        pictures = _as_batch(given)[:MOST_IN_BATCH]
        for number, picture in enumerate(pictures):
            yield (name if len(pictures) == 1 else f"{name}/{number}"), array_png(picture)


def array_png(picture: np.ndarray) -> bytes:
    """Encode bytes [height, width, 3 or 4] as a PNG file."""
    import matplotlib.image

    content = io.BytesIO()
    matplotlib.image.imsave(content, picture, format="png")
    return content.getvalue()


def png_size(png: bytes) -> tuple[int, int]:
    """Read width and height of a PNG file in pixels."""
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def _figure_png(figure: Any) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _as_batch(given: Any) -> np.ndarray:
    """Return bytes [n, height, width, 3 or 4]."""
    array = np.asarray(given)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"Expected {EXPECTED}, got {type(given).__name__} of {array.dtype}.")
    if array.ndim == 2:
        array = array[..., np.newaxis]
    if array.ndim == 3:
        array = array[np.newaxis]
    if array.ndim != 4 or array.shape[-1] not in (1, 3, 4) or not array.size:
        raise ValueError(f"Expected {EXPECTED}, got the shape {list(np.shape(given))}.")
    if array.dtype.kind == "b":
        array = array * np.uint8(255)
    elif array.dtype.kind == "f":
        array = np.nan_to_num(array.astype(np.float64), nan=0.0, posinf=1.0, neginf=0.0)
        array = array if array.max() > _BRIGHTEST else 255 * array  # beyond, they are in 0..255 already
        array = np.round(array)
    array = np.clip(array, 0, 255).astype(np.uint8)
    return np.repeat(array, 3, axis=-1) if array.shape[-1] == 1 else array


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
