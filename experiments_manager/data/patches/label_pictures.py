"""Label maps as pictures with a palette: what one sees are colours, what a program reads are classes."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments_manager.common.atomic import write_bytes
from experiments_manager.data.patches.pairs import IGNORED

Colour = tuple[int, int, int]


def default_colours(classes: int) -> list[Colour]:
    """Return a colour for each class, red, green and blue of 0 to 255; the first is dark grey, as for a background."""
    hues = [(number * 0.381966) % 1.0 for number in range(classes - 1)]  # the golden angle: neighbours differ most
    bright = [colorsys.hsv_to_rgb(hue, 0.75, 0.95) for hue in hues]
    return [(64, 64, 64), *[tuple(round(255 * part) for part in colour) for colour in bright]][:classes]


def write_label_map(file: Path | str, labels: np.ndarray, colours: Sequence[Colour]) -> None:
    """Write a label map as a PNG with a palette, whole or not at all; ignored pixels are white.

    Args:
        file: Ends in `.png`.
        labels: uint8 of shape [height, width].
        colours: Red, green and blue of each class.
    """
    from PIL import Image

    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colours)] = colours
    palette[IGNORED] = 255
    image = Image.fromarray(np.ascontiguousarray(labels))
    image.putpalette(palette.tobytes())
    content = io.BytesIO()
    image.save(content, format="PNG")
    write_bytes(file, content.getvalue())
