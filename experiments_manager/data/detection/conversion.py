"""Boxes in CSV files to COCO JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments_manager.data.detection.annotations import (
    AnnotatedImage,
    problem_of_box,
    read_annotations,
    read_categories,
)
from experiments_manager.data.detection.image_files import ImageFile, Progress, inspect_images, warn_of_turned
from experiments_manager.data.detection.output import SplitSummary, new_folder, refuse_existing
from experiments_manager.data.detection.problems import Problems
from experiments_manager.data.detection.splits import DEFAULT_SHARES, split_images
from experiments_manager.data.tables import DataFileError


def csv_to_coco(
    annotations: Path | str,
    categories: Path | str,
    images: Path | str,
    output: Path | str,
    *,
    shares: Mapping[str, float] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, SplitSummary]:
    """Convert boxes in a CSV file to a COCO JSON file a split.

    Args:
        annotations: CSV file with the columns `image, class, xmin, ymin, xmax, ymax`, in pixels; see
            `read_annotations`.
        categories: CSV file with the column `name` and, optionally, `id`.
        images: Folder that the names of the images are relative to.
        output: New folder for `<split>.json`; it appears whole or not at all.
        shares: Share of the images that each split gets. By default, 80 % train, 10 % validation, 10 % test. Not to be
            given where the annotations have a column `split`.
        seed: Another one gives other splits.
        progress: Is told how far it is.

    Returns:
        What each split holds.

    Raises:
        DataFileError: Anything is wrong with tables, images or boxes; the message lists all of it, and nothing was
            written.
    """
    output, problems = Path(output), Problems()
    refuse_existing(output)
    known = read_categories(categories, problems)
    found = read_annotations(annotations, known, problems)
    files = inspect_images(Path(images), [image.name for image in found], problems, progress)
    _check(found, files, problems)
    problems.refuse()
    warn_of_turned(files)
    splits = _splits(found, shares, seed)
    with new_folder(output) as stage:
        return _write(found, splits, files, known, stage)


def _write(
    found: Sequence[AnnotatedImage],
    splits: Mapping[str, str],
    files: Mapping[str, ImageFile],
    categories: Mapping[int, str],
    stage: Path,
) -> dict[str, SplitSummary]:
    summaries = {}
    for split in dict.fromkeys([*DEFAULT_SHARES, *splits.values()]):
        chosen = [image for image in found if splits[image.name] == split]
        if not chosen:
            continue
        content = _coco(chosen, files, categories)
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
    images: Sequence[AnnotatedImage], files: Mapping[str, ImageFile], categories: Mapping[int, str]
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
            {
                "id": number,
                "image_id": image,
                "category_id": box.category,
                "bbox": [box.xmin, box.ymin, box.xmax - box.xmin, box.ymax - box.ymin],
                "area": (box.xmax - box.xmin) * (box.ymax - box.ymin),
                "iscrowd": 0,
            }
            for number, (image, box) in enumerate(boxes, start=1)
        ],
        "categories": [{"id": number, "name": name} for number, name in categories.items()],
    }
