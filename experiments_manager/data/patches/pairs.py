"""Pairs of a large image and its label map, checked all together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments_manager.common.tables.problems import DataFileError, refuse
from experiments_manager.data.patches.rasters import IMAGE_ENDINGS, Raster, open_raster

IGNORED = 255
"""The label of pixels that neither loss nor scores look at."""
_HIGHEST_VALUE = 65535
_POSITIONS_KEPT = 4096


@dataclasses.dataclass(frozen=True)
class Pair:
    """An image and its label map of the same size.

    Attributes:
        name: Name of the image file, without its ending.
        image: The image.
        labels: The label map as it is in the file; `label_window` gives classes.
        positions: For each class that is there, pixels of it `[row, column]`, chosen by chance and always
            the same.
        pixels: How many pixels each class has, [classes].
    """

    name: str
    image: Raster
    labels: Raster
    positions: Mapping[int, np.ndarray]
    pixels: np.ndarray
    table: np.ndarray = dataclasses.field(repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image, in pixels."""
        return self.image.shape[:2]

    def image_window(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return a window of the image, float32 [height, width, channels]; whole numbers are brought to 0..1."""
        return as_floats(self.image.window(top, left, height, width))

    def label_window(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return a window of the classes, uint8 [height, width]; `IGNORED` where there is none."""
        return self.table[_labels(self.labels.window(top, left, height, width))]


def as_floats(pixels: np.ndarray) -> np.ndarray:
    """Return pixels as float32; whole numbers are divided by the largest of their type, bits are 0 and 1."""
    if pixels.dtype.kind in "bf":
        return pixels.astype(np.float32)
    return pixels.astype(np.float32) * np.float32(1 / np.iinfo(pixels.dtype).max)


def _labels(pixels: np.ndarray) -> np.ndarray:
    """Values of a label map [height, width] from its pixels; bits are 0 and 1."""
    return pixels[..., 0].astype(np.uint8) if pixels.dtype.kind == "b" else pixels[..., 0]


def read_pairs(
    folder: Path | str,
    classes: int,
    *,
    label_values: Sequence[int] | None = None,
    ignored_value: int | None = IGNORED,
    channels: int = 3,
    smallest: int = 1,
    every_class: bool = False,
) -> list[Pair]:
    """Open the pairs of a folder, which has `images/` and `labels/` with files of the same names but for their endings.

    Images are decoded, or mapped where they are large: see `open_raster`. Label maps are read through once.

    Args:
        folder: Where `images` and `labels` are.
        classes: How many classes there are.
        label_values: Value of each class in the label maps; `None` is 0, 1, ….
        ignored_value: Value of pixels to ignore; `None` where there are none.
        channels: Channels that each image must have.
        smallest: Height and width that each image must have at least.
        every_class: Whether each class must be somewhere in the folder, as training needs it.

    Returns:
        Pairs in the order of their names.

    Raises:
        DataFileError: The message lists all that is wrong, with the names of the files.
    """
    folder = Path(folder)
    table = _table_of_values(classes, label_values, ignored_value)
    images, labels, problems = _find_files(folder)
    pairs = []
    for name in sorted(images.keys() & labels.keys()):
        image, label_map = _open(images[name], problems), _open(labels[name], problems)
        if image and label_map:
            found = _problems_of_shapes(image, label_map, channels, smallest) or _problems_of_values(image)
            if not found:
                positions, pixels, found = _look_through(label_map, table, classes)
                pairs.append(Pair(name, image, label_map, positions, pixels, table))
            problems += found
    if pairs and not problems and every_class:
        values = list(range(classes)) if label_values is None else list(label_values)
        missing = np.flatnonzero(sum(pair.pixels for pair in pairs) == 0)
        problems += [
            f"{folder / 'labels'}: no pixel of class {index} (value {values[index]}) in {len(pairs)} label maps. "
            "Add images that show it, or number the classes without gaps."
            for index in missing
        ]
    refuse(problems)
    return pairs


def _table_of_values(classes: int, values: Sequence[int] | None, ignored_value: int | None) -> np.ndarray:
    """Class of each value of a label map, uint8 [65536]; one above the classes where the value is unknown."""
    if not 1 <= classes < IGNORED - 1:
        raise DataFileError(f"classes is {classes}. Expected 1 to {IGNORED - 2}.")
    values = list(range(classes)) if values is None else list(values)
    given = [*values, *([] if ignored_value is None else [ignored_value])]
    is_known = len(values) == classes and len(set(given)) == len(given)
    if not is_known or not all(0 <= value <= _HIGHEST_VALUE for value in given):
        raise DataFileError(
            f"label_values are {values}, and ignored_value is {ignored_value}. "
            f"Expected {classes} different values of 0 to {_HIGHEST_VALUE}, one a class, and another to ignore or None."
        )
    table = np.full(_HIGHEST_VALUE + 1, classes, np.uint8)
    table[values] = np.arange(classes)
    if ignored_value is not None:
        table[ignored_value] = IGNORED
    return table


def _find_files(folder: Path) -> tuple[dict[str, Path], dict[str, Path], list[str]]:
    """Images and label maps by name, and what is wrong with them."""
    found, problems = [], []
    for part in ("images", "labels"):
        files: dict[str, Path] = {}
        if not (folder / part).is_dir():
            problems.append(f"{folder / part} is no folder. Expected images/ and labels/ with files of the same names.")
        else:
            for file in sorted((folder / part).iterdir()):
                if file.suffix.lower() in IMAGE_ENDINGS and not file.name.startswith("."):
                    if file.stem in files:
                        problems.append(f"{file} has the name of {files[file.stem].name}. Remove one of them.")
                    files[file.stem] = file
            if not files:
                problems.append(f"{folder / part} holds no image. Expected files ending in {', '.join(IMAGE_ENDINGS)}.")
        found.append(files)
    images, labels = found
    if images and labels:
        for one, other, part in ((images, labels, "labels"), (labels, images, "images")):
            problems += [
                f"{one[name]} has no partner. Expected {folder / part / name} with the ending of an image. "
                "Add it, or remove the file."
                for name in sorted(one.keys() - other.keys())
            ]
    return images, labels, problems


def _open(file: Path, problems: list[str]) -> Raster | None:
    try:
        return open_raster(file)
    except DataFileError as error:
        problems.append(str(error))
        return None


def _problems_of_shapes(image: Raster, labels: Raster, channels: int, smallest: int) -> list[str]:
    problems = []
    height, width, given = image.shape
    if given != channels:
        problems.append(f"{image.file} has {given} channels. Expected {channels}. Convert it.")
    if image.has_palette:
        problems.append(f"{image.file} has a palette. Expected greys or colours. Convert it.")
    if min(height, width) < smallest:
        problems.append(f"{image.file} is {height}x{width} (height x width). Expected {smallest}x{smallest} at least.")
    if labels.shape[2] != 1 or labels.dtype.kind not in "biu":
        problems.append(
            f"{labels.file} has {labels.shape[2]} channels of type {labels.dtype}. "
            "Expected one channel of whole numbers, the label of each pixel. Convert colours to labels."
        )
    if labels.file.suffix.lower() in (".jpg", ".jpeg"):
        problems.append(f"{labels.file} is a JPEG, which changes labels at edges. Expected PNG, TIFF or .npy.")
    if labels.shape[:2] != (height, width):
        problems.append(
            f"{labels.file} is {labels.shape[0]}x{labels.shape[1]} (height x width). Expected {height}x{width} "
            f"like {image.file.name}."
        )
    return problems


def _problems_of_values(image: Raster) -> list[str]:
    if image.dtype.kind != "f":
        return []
    bad = sum(int((~np.isfinite(rows)).sum()) for _, rows in image.blocks())
    return [f"{image.file} holds {bad} values that are NaN or infinite. Fix or remove it."] if bad else []


def _look_through(
    labels: Raster, table: np.ndarray, classes: int
) -> tuple[dict[int, np.ndarray], np.ndarray, list[str]]:
    """Where each class is, how many pixels it has, and what is wrong with the values."""
    pixels, unknown, places = np.zeros(classes, np.int64), {}, {index: [] for index in range(classes)}
    width, generator = labels.shape[1], np.random.default_rng(0)
    for top, rows in labels.blocks():
        values = _labels(rows)
        outside = (
            (values < 0) | (values > _HIGHEST_VALUE) if values.dtype.itemsize > 2 or values.dtype.kind == "i" else None
        )
        wrong = outside.any() if outside is not None else False
        known = table[np.where(outside, 0, values)] if wrong else table[values]
        is_bad = (known == classes) | outside if wrong else known == classes
        for value, count in zip(*np.unique(values[is_bad], return_counts=True), strict=True):
            unknown[int(value)] = unknown.get(int(value), 0) + int(count)
        for index in np.unique(known[known < classes]):
            flat = np.flatnonzero(known == index)
            pixels[index] += len(flat)
            is_large = len(flat) > _POSITIONS_KEPT  # by chance: each n-th pixel may be one column of the image
            chosen = (
                flat[generator.integers(len(flat), size=_POSITIONS_KEPT)] if is_large else generator.permutation(flat)
            )
            found = np.column_stack([top + chosen // width, chosen % width]).astype(np.int32)
            places[int(index)].append((len(flat), found))
    positions = {index: _in_proportion(parts) for index, parts in places.items() if parts}
    return positions, pixels, [_of_unknown(labels, unknown, table, classes)] if unknown else []


def _in_proportion(parts: Sequence[tuple[int, np.ndarray]]) -> np.ndarray:
    """Positions of all blocks, from each as many as its share of the pixels; all of a small class."""
    counts, positions = zip(*parts, strict=True)
    total = sum(counts)
    kept = min(total, _POSITIONS_KEPT)
    owners = np.searchsorted(np.cumsum(counts), np.arange(kept) * total // kept, side="right")
    shares = np.bincount(owners, minlength=len(counts))
    return np.concatenate([part[:share] for part, share in zip(positions, shares, strict=True)])


def _of_unknown(labels: Raster, unknown: Mapping[int, int], table: np.ndarray, classes: int) -> str:
    shown = ", ".join(f"{value} ({count} pixels)" for value, count in sorted(unknown.items())[:10])
    expected = ", ".join(map(str, [*np.flatnonzero(table < classes)[:10], *(["…"] if classes > 10 else [])]))
    ignored = "".join(f", or {value} where a pixel is ignored" for value in np.flatnonzero(table == IGNORED))
    return (
        f"{labels.file} has labels out of range: {shown}{', …' if len(unknown) > 10 else ''}. Expected {expected}"
        f"{ignored}. Renumber them, or give label_values and ignored_value."
    )
