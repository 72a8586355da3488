"""What a user's metric may give as its picture, as PNG files."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

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
