"""Which arrays are pictures, and these as PNG and as coloured half blocks for a terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

SMALLEST = 4
"""Sides from which an array is taken for a picture."""


def is_picture(sample: np.ndarray) -> bool:
    """Return whether a sample is `[height, width, 1 or 3]` of bytes, or of numbers from 0 to 1."""
    if sample.ndim != 3 or sample.shape[2] not in (1, 3) or min(sample.shape[:2]) < SMALLEST:
        return False
    if sample.dtype == np.uint8:
        return True
    if sample.dtype.kind != "f":
        return False
    return bool(np.isfinite(sample).all() and sample.min() >= 0 and sample.max() <= 1)


def as_image(sample: np.ndarray) -> Any:
    """Return a picture as an image of Pillow, in colours."""
    from PIL import Image

    pixels = sample if sample.dtype == np.uint8 else np.round(sample.astype(np.float32) * 255).astype(np.uint8)
    return Image.fromarray(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)


def as_png(sample: np.ndarray) -> bytes:
    """Return a picture as a PNG file."""
    buffer = io.BytesIO()
    as_image(sample).save(buffer, "PNG")
    return buffer.getvalue()


def thumbnails(samples: Sequence[np.ndarray], columns: int, side: int = 24) -> Any:
    """Return pictures beside each other as text for rich: each character is two pixels, one above the other.

    Args:
        samples: The pictures; those that do not fit into the width are left out.
        columns: Width of the terminal.
        side: Most pixels of a side.
    """
    from rich.style import Style
    from rich.text import Text

    images = []
    for sample in samples:
        image = as_image(sample)
        image.thumbnail((side, side))
        images.append(np.asarray(image))
    while images and sum(image.shape[1] + 1 for image in images) > columns:
        images.pop()
    text = Text()
    for row in range(0, max((len(image) for image in images), default=0), 2):
        for image in images:
            for column in range(image.shape[1]):
                pair = [_colour(image, row + below, column) for below in (0, 1)]
                text.append("▀" if pair[0] else " ", Style(color=pair[0], bgcolor=pair[1]))
            text.append(" ")
        text.append("\n")
    return text


def _colour(image: np.ndarray, row: int, column: int) -> str | None:
    return "#{:02x}{:02x}{:02x}".format(*image[row, column]) if row < len(image) else None
