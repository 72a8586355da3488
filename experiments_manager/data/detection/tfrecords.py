"""COCO JSON to TFRecord, with the keys of the TensorFlow object detection API."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments_manager.common.tables.problems import DataFileError, Problems
from experiments_manager.data.detection.coco import area_of, read_coco
from experiments_manager.data.detection.image_files import (
    ImageFile,
    Progress,
    encoded_image,
    inspect_images,
    sized,
    warn_of_turned,
)
from experiments_manager.data.detection.object_masks import decoded_mask, png_of_mask
from experiments_manager.data.detection.output import SplitSummary, new_folder, refuse_existing
from experiments_manager.data.detection.pbtxt_label_maps import LABEL_MAP, label_map_text

BYTES_A_FILE = 128 * 2**20
"""Bytes of images in a file, about; several files are read at once."""


@dataclasses.dataclass(frozen=True)
class _Split:
    name: str
    path: Path
    images: list[dict[str, Any]]
    annotations: dict[int, list[dict[str, Any]]]
    categories: dict[int, str]
    masks: bool = False


def coco_to_tfrecord(
    coco: Path | str,
    images: Path | str,
    output: Path | str,
    *,
    masks: bool = False,
    shards: int | None = None,
    progress: Progress | None = None,
) -> dict[str, SplitSummary]:
    """Convert COCO JSON files to TFRecord files and a label map.

    Args:
        coco: A COCO JSON file, or a folder of some, one a split, as `csv_to_coco` writes it.
        images: Folder that `file_name` is relative to.
        output: New folder for `<split>-00000-of-<shards>.tfrecord` and `label_map.pbtxt`; it appears whole or not at
            all.
        masks: Whether the masks of the objects are written too; each annotation must have a `segmentation` then.
        shards: Files of each split; by default as many as make about 128 MiB each.
        progress: Is told how far it is.

    Returns:
        What each split holds.

    Raises:
        DataFileError: Anything is wrong with annotations or images; the message lists all of it, and nothing was
            written.
    """
    output, folder, problems = Path(output), Path(images), Problems()
    refuse_existing(output)
    splits = _read_splits(Path(coco), problems, masks)
    names = [image["file_name"] for split in splits for image in split.images]
    files = inspect_images(folder, names, problems, progress)
    _check(splits, files, problems)
    problems.refuse()
    warn_of_turned(files)
    try:
        with new_folder(output) as stage:
            (stage / LABEL_MAP).write_text(label_map_text(splits[0].categories), encoding="utf-8")
            for split in splits:
                _write(split, folder, stage, shards, progress)
    except FileNotFoundError as error:
        text = f"{error.filename} is gone since it was read. Nothing was written. Run it again."
        raise DataFileError(text) from error
    return {split.name: SplitSummary(len(split.images), sum(map(len, split.annotations.values()))) for split in splits}


def _read_splits(coco: Path, problems: Problems, masks: bool) -> list[_Split]:
    paths = sorted(coco.glob("*.json")) if coco.is_dir() else [coco]
    if not paths:
        raise DataFileError(f"{coco} holds no JSON files. Expected a COCO JSON file for each split.")
    splits = [_read_split(path, problems, masks) for path in paths]
    for split in splits[1:]:
        if split.categories and splits[0].categories and split.categories != splits[0].categories:
            text = f"its categories are not those of {splits[0].path}. Expected the same in all files."
            problems.add(split.path, text)
    owners: dict[str, Path] = {}
    for split in splits:
        for image in split.images:
            if (owner := owners.setdefault(Path(image["file_name"]).as_posix(), split.path)) != split.path:
                problems.add(split.path, f"image {image['file_name']} is in {owner} too. Expected each in one split.")
    return splits


def _read_split(path: Path, problems: Problems, masks: bool) -> _Split:
    before = len(problems)
    content = read_coco(path, problems, masks=masks)
    if len(problems) > before:  # entries may not be whole; of the images, those that are still get looked at
        entries = (image for image in content["images"] if isinstance(image, dict))
        images = [image for image in entries if type(image.get("file_name")) is str]
        return _Split(path.stem, path, images, {}, {})
    annotations: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    categories = {category["id"]: category["name"] for category in content["categories"]}
    return _Split(path.stem, path, content["images"], annotations, categories, masks)


def _check(splits: Sequence[_Split], files: Mapping[str, ImageFile], problems: Problems) -> None:
    for split in splits:
        for image in split.images:
            file, place = files.get(image["file_name"]), f"{split.path}, image {image.get('id')}"
            if file is None:
                continue
            if file.problem:
                problems.add(place, file.problem)
            elif (file.width, file.height) != (image.get("width"), image.get("height")):
                told = f"{image.get('width')} x {image.get('height')}, as the entry says"
                found = f"{file.width} x {file.height} pixels"
                problems.add(place, f"{image['file_name']} is {found}. Expected {told}. Correct the entry.")


def _write(split: _Split, folder: Path, stage: Path, shards: int | None, progress: Progress | None) -> None:
    import tensorflow as tf

    if shards is None:
        size = sum((folder / image["file_name"]).stat().st_size for image in split.images)
        shards = max(1, -(-size // BYTES_A_FILE))
    shards = min(shards, len(split.images))
    ordered = iter(sized(split.images, f"{split.name} images written", len(split.images), progress))
    for shard in range(shards):
        first, last = (len(split.images) * part // shards for part in (shard, shard + 1))
        with tf.io.TFRecordWriter(str(stage / f"{split.name}-{shard:05d}-of-{shards:05d}.tfrecord")) as writer:
            for _ in range(first, last):
                image = next(ordered)
                example = _example(image, split.annotations[image["id"]], split, folder)
                writer.write(example.SerializeToString(deterministic=True))
    next(ordered, None)  # tells of the last image


def _example(image: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]], split: _Split, folder: Path) -> Any:
    """Return the `tf.train.Example` of an image."""
    import tensorflow as tf

    content, kind = encoded_image(folder / image["file_name"])
    width, height = image["width"], image["height"]
    corners = [
        (x / width, y / height, min((x + w) / width, 1), min((y + h) / height, 1))
        for x, y, w, h in (annotation["bbox"] for annotation in annotations)
    ]
    texts: dict[str, list[bytes]] = {
        "image/encoded": [content],
        "image/format": [kind.encode()],
        "image/filename": [image["file_name"].encode()],
        "image/source_id": [str(image["id"]).encode()],
        "image/key/sha256": [hashlib.sha256(content).hexdigest().encode()],
        "image/object/class/text": [split.categories[annotation["category_id"]].encode() for annotation in annotations],
    }
    if split.masks:
        masks = (decoded_mask(annotation["segmentation"], (width, height)) for annotation in annotations)
        texts["image/object/mask"] = [png_of_mask(mask) for mask in masks]
    integers = {
        "image/height": [height],
        "image/width": [width],
        "image/object/class/label": [annotation["category_id"] for annotation in annotations],
        "image/object/is_crowd": [int(annotation.get("iscrowd") or 0) for annotation in annotations],
    }
    floats = {
        f"image/object/bbox/{side}": [max(corner[place], 0) for corner in corners]
        for place, side in enumerate(("xmin", "ymin", "xmax", "ymax"))
    }
    floats["image/object/area"] = [area_of(annotation) for annotation in annotations]
    features = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=each)) for name, each in texts.items()}
    features |= {name: tf.train.Feature(int64_list=tf.train.Int64List(value=each)) for name, each in integers.items()}
    features |= {name: tf.train.Feature(float_list=tf.train.FloatList(value=each)) for name, each in floats.items()}
    return tf.train.Example(features=tf.train.Features(feature=features))
