"""Boxes in CSV files, and masks in image files, to COCO JSON."""

from __future__ import annotations

import collections
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments_manager.common.tables.problems import DataFileError, Problems
from experiments_manager.data.detection.annotations import (
    AnnotatedImage,
    Box,
    problem_of_box,
    read_annotations,
    read_categories,
)
from experiments_manager.data.detection.image_files import ImageFile, Progress, inspect_images, sized, warn_of_turned
from experiments_manager.data.detection.object_masks import encoded_mask, problem_of_mask, read_mask_image
from experiments_manager.data.detection.output import SplitSummary, new_folder, refuse_existing
from experiments_manager.data.detection.splits import DEFAULT_SHARES, split_images

Masks = Mapping[str, tuple[dict[str, Any], int]]
"""COCO's run lengths and the number of pixels of each mask, by the place of its box."""


def csv_to_coco(
    annotations: Path | str,
    categories: Path | str,
    images: Path | str,
    output: Path | str,
    *,
    mask_dir: Path | str | None = None,
    shares: Mapping[str, float] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, SplitSummary]:
    """Convert boxes in a CSV file to a COCO JSON file a split.

    Args:
        annotations: CSV file with the columns `image, class, xmin, ymin, xmax, ymax`, in pixels, and, for masks, `mask`
            and `mask_value`; see `read_annotations`.
        categories: CSV file with the column `name` and, optionally, `id`.
        images: Folder that the names of the images are relative to.
        output: New folder for `<split>.json`; it appears whole or not at all.
        mask_dir: Folder that the names of masks are relative to, by default that of the images.
        shares: Share of the images that each split gets. By default, 80 % train, 10 % validation, 10 % test. Not to be
            given where the annotations have a column `split`.
        seed: Another one gives other splits.
        progress: Is told how far it is.

    Returns:
        What each split holds.

    Raises:
        DataFileError: Anything is wrong with tables, images, boxes or masks; the message lists all of it, and nothing
            was written.
    """
    output, problems = Path(output), Problems()
    refuse_existing(output)
    known = read_categories(categories, problems)
    found = read_annotations(annotations, known, problems)
    files = inspect_images(Path(images), [image.name for image in found], problems, progress)
    _check(found, files, problems)
    masks = _read_masks(found, Path(images if mask_dir is None else mask_dir), files, problems, progress)
    problems.refuse()
    warn_of_turned(files)
    splits = _splits(found, shares, seed)
    with new_folder(output) as stage:
        return _write(found, splits, files, masks, known, stage)


def _write(
    found: Sequence[AnnotatedImage],
    splits: Mapping[str, str],
    files: Mapping[str, ImageFile],
    masks: Masks,
    categories: Mapping[int, str],
    stage: Path,
) -> dict[str, SplitSummary]:
    summaries = {}
    for split in dict.fromkeys([*DEFAULT_SHARES, *splits.values()]):
        chosen = [image for image in found if splits[image.name] == split]
        if not chosen:
            continue
        content = _coco(chosen, files, masks, categories)
        text = json.dumps(content, ensure_ascii=False, allow_nan=False)
        (stage / f"{split}.json").write_text(text + "\n", encoding="utf-8")
        summaries[split] = SplitSummary(len(chosen), len(content["annotations"]))
    return summaries


def _check(found: Sequence[AnnotatedImage], files: Mapping[str, ImageFile], problems: Problems) -> None:
    for image in found:
        file = files.get(image.name)
        if file is None:
            continue
        if file.problem:
            problems.add(image.place, file.problem)
            continue
        for box in image.boxes:
            if text := problem_of_box(box.xmin, box.ymin, box.xmax, box.ymax, file.width, file.height):
                problems.add(f"{box.place}, image {image.name}", text)


def _read_masks(
    found: Sequence[AnnotatedImage],
    folder: Path,
    files: Mapping[str, ImageFile],
    problems: Problems,
    progress: Progress | None,
) -> Masks:
    """Read the masks of all boxes that have one, each file once for an image."""
    masked: dict[tuple[str, str], list[Box]] = collections.defaultdict(list)
    for image in found:
        for box in image.boxes:
            if box.mask and image.name in files and not files[image.name].problem:
                masked[image.name, box.mask].append(box)
    masks: dict[str, tuple[dict[str, Any], int]] = {}
    for (name, mask), boxes in sized(masked.items(), "masks read", len(masked), progress):
        values = read_mask_image(folder / mask, (files[name].width, files[name].height))
        if isinstance(values, str):
            problems.add(f"{boxes[0].place}, image {name}", values)
            continue
        for box in boxes:
            pixels = values != 0 if box.mask_value is None else values == box.mask_value
            if text := problem_of_mask(pixels, (box.xmin, box.ymin, box.xmax, box.ymax)):
                problems.add(f"{box.place}, image {name}", text)
            elif len(problems) == 0:
                masks[box.place] = encoded_mask(pixels), int(pixels.sum())
    return masks


def _splits(found: Sequence[AnnotatedImage], shares: Mapping[str, float] | None, seed: int) -> dict[str, str]:
    if not any(image.split for image in found):
        return split_images([image.name for image in found], shares or DEFAULT_SHARES, seed)
    if shares is not None:
        text = "Shares of splits are given, and the annotations have a column 'split'. Expected one of both."
        raise DataFileError(text)
    if missing := [image.place for image in found if not image.split]:
        shown = "; ".join(missing[:10])
        raise DataFileError(f"Images without a split: {shown}. Expected one in each line, since others have it.")
    return {image.name: image.split for image in found}


def _coco(
    images: Sequence[AnnotatedImage], files: Mapping[str, ImageFile], masks: Masks, categories: Mapping[int, str]
) -> dict[str, Any]:
    sizes = [files[image.name] for image in images]
    boxes = [(number, box) for number, image in enumerate(images, start=1) for box in image.boxes]
    return {
        "info": {"description": "Made by experiments_manager data csv-to-coco"},
        "images": [
            {"id": number, "file_name": image.name, "width": file.width, "height": file.height}
            for number, (image, file) in enumerate(zip(images, sizes, strict=True), start=1)
        ],
        "annotations": [
            {"id": number, "image_id": image, "category_id": box.category, **_shape(box, masks), "iscrowd": 0}
            for number, (image, box) in enumerate(boxes, start=1)
        ],
        "categories": [{"id": number, "name": name} for number, name in categories.items()],
    }


def _shape(box: Box, masks: Masks) -> dict[str, Any]:
    width, height = box.xmax - box.xmin, box.ymax - box.ymin
    shape = {"bbox": [box.xmin, box.ymin, width, height], "area": width * height}
    if box.place in masks:
        shape["segmentation"], shape["area"] = masks[box.place]
    return shape
