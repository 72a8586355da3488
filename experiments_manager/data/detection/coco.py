"""COCO JSON of boxes and masks, read with all that is wrong in it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments_manager.common.tables.problems import Problems
from experiments_manager.data.detection.annotations import problem_of_box
from experiments_manager.data.detection.object_masks import decoded_mask, problem_of_mask

_SLACK = 0.01
"""Pixels by which boxes may leave an image, since other programs round."""


def read_coco(path: Path, problems: Problems, *, masks: bool = False) -> dict[str, Any]:
    """Read a COCO JSON file of boxes, and check that its parts fit together.

    Args:
        path: The file.
        problems: Takes what is wrong.
        masks: Whether each annotation must have a `segmentation`.

    Returns:
        The lists `images`, `annotations` and `categories`, empty where the file could not be read.
    """
    content = _content(path, problems)
    images = _by_id(path, "images", content, ("file_name", "width", "height"), problems)
    categories = _by_id(path, "categories", content, ("name",), problems)
    for annotation in _by_id(path, "annotations", content, ("image_id", "category_id", "bbox"), problems).values():
        image = images.get(annotation["image_id"])
        place = f"{path}, annotation {annotation['id']}" + (f", image {image['file_name']}" if image else "")
        if image is None:
            text = f"image_id {annotation['image_id']} is none of the images. Add the image, or remove it."
            problems.add(place, text)
        if annotation["category_id"] not in categories:
            shown = ", ".join(f"{number} ({category['name']})" for number, category in list(categories.items())[:20])
            problems.add(place, f"category_id {annotation['category_id']} is unknown. Expected one of {shown}.")
        text = _problem_of_bbox(annotation["bbox"], image) or _problem_of_numbers(annotation)
        if text is None and masks:
            text = _problem_of_segmentation(annotation, image)
        if text is not None:
            problems.add(place, text)
    return {name: content.get(name, []) for name in ("images", "annotations", "categories")}


def area_of(annotation: Mapping[str, Any]) -> float:
    """Return the area of an object in pixels, that of its box where none is given."""
    area = annotation.get("area")
    return float(annotation["bbox"][2] * annotation["bbox"][3] if area is None else area)


def _content(path: Path, problems: Problems) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        problems.add(path, "not found. Expected a COCO JSON file.")
        return {}
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problems.add(f"{path}, line {line}", "it is not UTF-8. Expected JSON in UTF-8.")
        return {}
    except (OSError, ValueError, RecursionError) as error:
        problems.add(path, f"it cannot be read: {error}. Expected a COCO JSON file.")
        return {}
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or any(not isinstance(content.get(name), list) for name in lists):
        problems.add(path, "it is no COCO file. Expected an object with the lists images, annotations and categories.")
        return {}
    if not content["images"] or not content["categories"]:
        problems.add(path, "it has no images or no categories. Expected at least one of each.")
    return content


def _by_id(
    path: Path, name: str, content: Mapping[str, Any], needed: Sequence[str], problems: Problems
) -> dict[Any, dict[str, Any]]:
    """Return the whole entries of a list by their ids, and take the others out of the list."""
    found: dict[Any, dict[str, Any]] = {}
    for number, entry in enumerate(content.get(name, []), start=1):
        place = f"{path}, {name} entry {number}"
        if not isinstance(entry, dict) or (missing := [key for key in ("id", *needed) if key not in entry]):
            shown = ", ".join(missing) if isinstance(entry, dict) else "everything"
            problems.add(place, f"{shown} is missing. Expected {', '.join(('id', *needed))}.")
        elif any(type(entry[key]) is not int for key in entry if key in ("id", "image_id", "category_id")):
            problems.add(place, "an id is no whole number. Expected whole numbers.")
        elif any(type(entry[key]) is not str for key in entry if key in ("file_name", "name")):
            problems.add(place, "a name is no text. Expected text.")
        elif entry["id"] in found or (name == "categories" and entry["id"] < 1):
            problems.add(place, f"id {entry['id']} is there twice, or below 1. Expected another for each entry.")
        else:
            found[entry["id"]] = entry
    return found


def _problem_of_bbox(bbox: Any, image: Mapping[str, Any] | None) -> str | None:
    numbers = isinstance(bbox, list) and len(bbox) == 4 and all(type(side) in (int, float) for side in bbox)
    if not numbers or not all(math.isfinite(side) for side in bbox):
        return f"bbox {bbox} is no box. Expected four numbers: x, y, width and height in pixels."
    if image is None or type(image["width"]) is not int or type(image["height"]) is not int:
        return None
    x, y, width, height = bbox
    far = (image["width"], image["height"])
    near = (0 if -_SLACK < side < 0 else side for side in (x, y))
    ends = zip((x + width, y + height), far, strict=True)
    return problem_of_box(*near, *(end if abs(side - end) < _SLACK else side for side, end in ends), *far)


def _problem_of_numbers(annotation: Mapping[str, Any]) -> str | None:
    area, crowd = annotation.get("area"), annotation.get("iscrowd")
    if area is not None and (type(area) not in (int, float) or not math.isfinite(area)):
        return f"area {area!r} is no number. Expected one of square pixels. Correct it, or leave it out."
    if crowd not in (None, 0, 1):
        return f"iscrowd is {crowd!r}. Expected 0 or 1. Correct it, or leave it out."
    return None


def _problem_of_segmentation(annotation: Mapping[str, Any], image: Mapping[str, Any] | None) -> str | None:
    """Say what is wrong with the mask of an annotation whose box is one."""
    if "segmentation" not in annotation:
        return "it has no segmentation. Expected polygons or run lengths. Add it, or convert without masks."
    if image is None or type(image["width"]) is not int or type(image["height"]) is not int:
        return None
    try:
        mask = decoded_mask(annotation["segmentation"], (image["width"], image["height"]))
    except ValueError as error:
        return str(error)
    x, y, width, height = annotation["bbox"]
    return problem_of_mask(mask, (x, y, x + width, y + height))
