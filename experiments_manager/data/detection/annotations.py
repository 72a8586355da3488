"""Boxes in a CSV file, and the categories that they may be of."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.common.tables.headed import read_rows
from experiments_manager.common.tables.problems import Problems

COLUMNS = ("image", "class", "xmin", "ymin", "xmax", "ymax")
_SIDES = COLUMNS[2:]


@dataclasses.dataclass(frozen=True)
class Box:
    """A box in pixels; `xmax` and `ymax` are the first column and row beside it.

    Attributes:
        category: The id of its category.
        place: File and line that it comes from, for messages.
        mask: File of its mask, relative to the folder of masks; empty without one.
        mask_value: The value that its pixels have there; `None` for any but 0.
    """

    category: int
    xmin: float
    ymin: float
    xmax: float
    ymax: float
    place: str
    mask: str = ""
    mask_value: int | None = None


@dataclasses.dataclass
class AnnotatedImage:
    """An image with the boxes in it; none for one that shows nothing.

    Attributes:
        name: Its file, relative to the folder of images.
        place: File and line that names it first.
        split: The split that the column `split` puts it into; empty without such a column.
        boxes: The boxes in the order of the file.
    """

    name: str
    place: str
    split: str = ""
    boxes: list[Box] = dataclasses.field(default_factory=list)


def read_categories(path: Path | str, problems: Problems) -> dict[int, str]:
    """Read the names of categories by their ids.

    Args:
        path: A CSV file with the columns `name` and, optionally, `id`: whole numbers from 1. Without it, the categories
            are counted from 1 in the order of the file.
        problems: Takes what is wrong.
    """
    path = Path(path)
    found: dict[int, str] = {}
    for number, (line, row) in enumerate(read_rows(path, ("name",), problems), start=1):
        place, name = f"{path}, line {line}", row["name"]
        given = row.get("id", str(number))
        if not name:
            problems.add(place, "it has no name. Fill in the column 'name', or remove the line.")
        elif name in found.values():
            problems.add(place, f"category {name!r} is there twice. Expected each once. Remove one.")
        elif not (given.isascii() and given.isdigit() and int(given) > 0):
            problems.add(place, f"id {given!r} is no whole number from 1. Correct it, or leave the column out.")
        elif int(given) in found:
            problems.add(place, f"id {given} is there twice. Expected another for each category. Change one.")
        else:
            found[int(given)] = name
    return found


def read_annotations(path: Path | str, categories: dict[int, str], problems: Problems) -> list[AnnotatedImage]:
    """Read the boxes of each image, in the order in which the file names the images.

    Args:
        path: A CSV file with the columns `image`, `class`, `xmin`, `ymin`, `xmax` and `ymax`, in pixels, a line for
            each box. A line with nothing but the image is an image without boxes. A column `split`, if it is there,
            puts each image into a split. A column `mask` names an image file of the object's mask, and a column
            `mask_value` the value of its pixels there; without, they are all that are not 0.
        categories: Names of the categories by their ids.
        problems: Takes what is wrong.
    """
    path = Path(path)
    ids = {name: number for number, name in categories.items()}
    images: dict[str, AnnotatedImage] = {}
    seen: dict[tuple[str, ...], int] = {}
    for line, row in read_rows(path, COLUMNS, problems):
        place = f"{path}, line {line}"
        if not row["image"]:
            problems.add(place, "it names no image. Fill in the column 'image', or remove the line.")
            continue
        name = Path(row["image"]).as_posix()  # one name for a.jpg and ./a.jpg, which must not be in two splits
        image = images.setdefault(name, AnnotatedImage(name, place, row.get("split", "")))
        if image.split != row.get("split", ""):
            text = f"image {image.name} is in the split {row['split']!r}, and in {image.split!r} by {image.place}"
            problems.add(place, f"{text}. Expected all boxes of an image in one split. Correct one of them.")
        given = (name, *(row[column] for column in COLUMNS[1:]))
        if not any(given[1:]):
            continue
        if (before := seen.setdefault(given, line)) != line:
            problems.add(place, f"it is the same box as in line {before}. Expected each once. Remove one.")
        box = _box(row, ids, place, problems)
        if box is not None:
            image.boxes.append(box)
    return list(images.values())


def _box(row: dict[str, str], ids: dict[str, int], place: str, problems: Problems) -> Box | None:
    """Return the box of a line, or `None` where it is no box."""
    count = len(problems)
    if row["class"] not in ids and (ids or not row["class"]):
        hint = did_you_mean(row["class"], list(ids))
        text = f"class {row['class']!r} is unknown. Expected one of {', '.join(list(ids)[:20])}. {hint}"
        problems.add(place, text.rstrip())
    sides = {}
    for side in _SIDES:
        sides[side] = number(row[side])
        if math.isnan(sides[side]) or math.isinf(sides[side]):
            problems.add(place, f"{side} is {row[side]!r}. Expected a number of pixels.")
    mask, value = row.get("mask", ""), row.get("mask_value", "")
    if value and not (mask and value.isascii() and value.isdigit() and int(value) > 0):
        text = f"mask_value is {value!r}" if mask else "it has a mask_value and no mask"
        problems.add(place, f"{text}. Expected a whole number from 1, and the mask's file in the column 'mask'.")
    if len(problems) > count:
        return None
    return Box(ids.get(row["class"], 0), **sides, place=place, mask=mask, mask_value=int(value) if value else None)


def problem_of_box(xmin: float, ymin: float, xmax: float, ymax: float, width: int, height: int) -> str | None:
    """Say what is wrong with a box in an image of a size, all in pixels; `None` for nothing."""
    shown = f"box x {xmin:g} to {xmax:g}, y {ymin:g} to {ymax:g}"
    if xmax <= xmin or ymax <= ymin:
        return f"{shown} is empty. Expected xmin below xmax and ymin below ymax. Correct or remove it."
    if xmin < 0 or ymin < 0 or xmax > width or ymax > height:
        return f"{shown} lies outside of the image, which is {width} x {height} pixels. Cut or remove it."
    return None


def number(text: str) -> float:
    """Return a number, NaN where the text is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
