"""Masks of objects: as image files, as COCO's polygons and run lengths, and as a served detector gives them."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments_manager.common.errors import UserError
from experiments_manager.common.installation import install_command
from experiments_manager.data.detection.image_files import pillow

_ONE_CHANNEL = ("1", "L", "P", "I", "I;16", "I;16B")


def read_mask_image(path: Path, size: tuple[int, int]) -> np.ndarray | str:
    """Read an image of masks, with a value for each object, or anything but 0 for a single one.

    Args:
        path: The file.
        size: Width and height that it should have, in pixels.

    Returns:
        Whole numbers [height, width], or what is wrong with the file.
    """
    if not path.is_file():
        return f"mask {path} not found. Add it, or leave the column 'mask' empty."
    try:
        with pillow().open(path) as image:
            if image.mode not in _ONE_CHANNEL:
                shown = f"mask {path} has the channels {', '.join(image.getbands())}"
                return f"{shown}. Expected a single one, such as a grey or palette PNG. Convert it."
            pixels = np.asarray(image).astype(np.int64)
    except Exception as error:  # Pillow's decoders raise whatever broken files make of them
        reason = str(error).replace(str(path), "it").strip() or type(error).__name__
        return f"mask {path} cannot be decoded ({reason}). Expected a whole image. Replace it."
    if pixels.shape != size[::-1]:
        found = f"mask {path} is {pixels.shape[1]} x {pixels.shape[0]} pixels"
        return f"{found}. Expected {size[0]} x {size[1]}, as its image is. Replace it."
    return pixels


def problem_of_mask(mask: np.ndarray, box: tuple[float, float, float, float]) -> str | None:
    """Say what is wrong with the mask of an object, bool [height, width]; `None` for nothing.

    Args:
        mask: Of the whole image.
        box: xmin, ymin, xmax and ymax of the object in pixels.
    """
    total = int(mask.sum())
    if not total:
        return "its mask has no pixel. Correct it, or leave it out."
    xmin, ymin, xmax, ymax = box
    near = mask[max(0, math.floor(ymin)) : math.ceil(ymax), max(0, math.floor(xmin)) : math.ceil(xmax)]
    if 2 * int(near.sum()) < total:
        outside = f"{total - int(near.sum())} of the {total} pixels of its mask"
        return f"{outside} lie outside of its box. Expected most of them inside. Correct mask or box."
    return None


def encoded_mask(mask: np.ndarray) -> dict[str, Any]:
    """Return a mask, bool [height, width], as the run lengths of COCO: `size` and `counts`."""
    encoded = _coco_masks().encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def decoded_mask(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Return the mask, bool [height, width], of a COCO `segmentation`.

    Args:
        segmentation: Polygons `[[x, y, x, y, …], …]`, or run lengths `{"size": …, "counts": …}`, as numbers or text.
        size: Width and height of the image, in pixels.

    Raises:
        ValueError: It is neither; the message says what is wrong.
    """
    if isinstance(segmentation, list):
        coco, (width, height) = _coco_masks(), size
        return coco.decode(coco.merge(coco.frPyObjects(_polygons(segmentation), height, width))).astype(bool)
    runs = _runs(segmentation, size)
    if sum(runs) != size[0] * size[1]:
        text = f"its run lengths add up to {sum(runs)} pixels"
        raise ValueError(f"{text}. Expected {size[0] * size[1]}, as the image has. Correct them.")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(size).T  # column by column


def _polygons(given: list[Any]) -> list[list[float]]:
    if not given:
        raise ValueError("its segmentation is empty. Expected polygons or run lengths. Add them.")
    for polygon in given:
        numbers = isinstance(polygon, list) and all(type(value) in (int, float) for value in polygon)
        if not numbers or len(polygon) < 6 or len(polygon) % 2 or not all(map(math.isfinite, polygon)):
            text = "a polygon of its segmentation is none. Expected x and y in turn, of three points or more"
            raise ValueError(f"{text}, got {str(polygon)[:60]}. Correct it.")
    return [[float(value) for value in polygon] for polygon in given]


def _runs(given: Any, size: tuple[int, int]) -> list[int]:
    if not isinstance(given, Mapping) or "counts" not in given or "size" not in given:
        raise ValueError("its segmentation has no polygons and no run lengths. Expected a list, or size and counts.")
    if given["size"] != [size[1], size[0]]:
        shown = f"the size of its run lengths is {given['size']}"
        raise ValueError(f"{shown}. Expected [{size[1]}, {size[0]}], the height and width of its image. Correct it.")
    counts = given["counts"]
    runs = _runs_of_text(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or any(type(run) is not int or run < 0 for run in runs):
        raise ValueError("its run lengths cannot be read. Expected numbers, or text as pycocotools writes it.")
    return runs


def _runs_of_text(text: str) -> list[int] | None:
    """Decode COCO's text of run lengths (`rleFrString` of its API); `None` where it is damaged.

    pycocotools itself gives memory that nobody wrote where the runs end too early.
    """
    runs: list[int] = []
    value = shift = 0
    for code in (ord(character) - 48 for character in text):
        if not 0 <= code < 64 or shift > 60:
            return None
        value, shift = value | (code & 31) << shift, shift + 5
        if code & 32:  # more follow
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return None if shift else runs


def png_of_mask(mask: np.ndarray) -> bytes:
    """Return a mask, bool [height, width], as a PNG of 0 and 1, as the object detection API has it."""
    buffer = io.BytesIO()
    pillow().fromarray(mask.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def image_masks(detections: Mapping[str, np.ndarray], width: int, height: int) -> np.ndarray:
    """Put the masks that a served detector found into their places in an image.

    Args:
        detections: `detection_masks` [boxes, rows, columns], the probability of each part of the box;
            `detection_boxes` [boxes, 4] as parts of the image (ymin, xmin, ymax, xmax), and `num_detections`.
        width: Of the image, in pixels.
        height: Of the image, in pixels.

    Returns:
        bool [num_detections, height, width]; a pixel is in a mask where its middle is more likely inside than not.
    """
    count = int(detections["num_detections"])
    found = np.zeros((count, height, width), bool)
    for place in range(count):
        ymin, xmin, ymax, xmax = np.asarray(detections["detection_boxes"][place], float)
        mask = np.asarray(detections["detection_masks"][place], float)
        rows = _between(ymin * height, ymax * height, mask.shape[0], height)
        columns = _between(xmin * width, xmax * width, mask.shape[1], width)
        found[place] = rows @ mask @ columns.T > 0.5
    return found


def _between(low: float, high: float, cells: int, pixels: int) -> np.ndarray:
    """Return weights [pixels, cells] that interpolate linearly between cells from `low` to `high`; 0 outside."""
    place = (np.arange(pixels) + 0.5 - low) / max(high - low, 1e-9) * cells
    middle = np.clip(place - 0.5, 0, cells - 1)[:, np.newaxis]
    weights = np.maximum(0, 1 - np.abs(middle - np.arange(cells)))
    return weights * ((place >= 0) & (place < cells))[:, np.newaxis]


def _coco_masks() -> Any:
    """Import pycocotools' module of masks."""
    try:
        from pycocotools import mask
    except ImportError as error:
        text = f"Masks are encoded by pycocotools, which is missing. Run: {install_command('detection')}"
        raise UserError(text) from error
    return mask
