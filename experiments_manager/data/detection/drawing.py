"""Boxes and masks drawn onto images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments_manager.data.detection.image_files import pillow
from experiments_manager.data.detection.object_masks import image_masks

_COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")
_SHADE = 110  # of 255: what is below stays visible


def draw_detections(
    image: Any, detections: Mapping[str, np.ndarray], categories: Mapping[int, str], *, min_score: float = 0.5
) -> Any:
    """Draw what a served detector found.

    Args:
        image: Image of Pillow, which stays as it is.
        detections: `detection_boxes` [boxes, 4] as parts of the image (ymin, xmin, ymax, xmax), `detection_scores`,
            `detection_classes` and `num_detections`; and `detection_masks`, where there are some, as `image_masks`
            takes them.
        categories: Names of the categories by their ids.
        min_score: Boxes below it are left out.

    Returns:
        A new image of Pillow, in RGB.
    """
    Image = pillow()  # noqa: N806  (a module of that name)
    from PIL import ImageDraw

    drawn = image.convert("RGB")
    masks = image_masks(detections, *drawn.size) if "detection_masks" in detections else None
    pen = ImageDraw.Draw(drawn)
    line = max(1, round(min(drawn.size) / 150))
    for place in range(int(detections["num_detections"])):
        score = float(detections["detection_scores"][place])
        if score < min_score:
            continue
        number = int(detections["detection_classes"][place])
        ymin, xmin, ymax, xmax = np.asarray(detections["detection_boxes"][place]) * np.tile(drawn.size[::-1], 2)
        colour = _COLOURS[number % len(_COLOURS)]
        if masks is not None:
            shade = Image.fromarray((masks[place] * _SHADE).astype(np.uint8))
            drawn.paste(colour, mask=shade)
        pen.rectangle((xmin, ymin, xmax, ymax), outline=colour, width=line)
        text = f"{categories.get(number, number)} {score:.2f}"
        corner = (max(0, min(xmin + 1, drawn.width - pen.textlength(text) - 1)), max(0, ymin - 11))
        left, top, right, bottom = pen.textbbox(corner, text)
        pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), fill=colour)
        pen.text(corner, text, fill="white")
    return drawn
