"""Folders of images, one for each class, read into arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.common.tables.problems import DataFileError, refuse
from experiments_manager.data.bit_depths import MODES, read_upright, reason_unreadable

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
SPLITS = ("train", "validation", "test")
FITS = ("crop", "pad", "stretch")


@dataclasses.dataclass(frozen=True)
class LabelledImages:
    """Images of one split.

    Attributes:
        images: float32 of shape [images, height, width, channels] in 0..1.
        labels: Index of each image's class, int32 [images].
        files: Where each comes from.
        class_names: Names of the classes, which are those of the folders.
    """

    images: np.ndarray
    labels: np.ndarray
    files: Sequence[Path]
    class_names: Sequence[str]


def read_image_folders(
    folder: Path | str,
    split: str,
    size: tuple[int, int],
    *,
    class_names: Sequence[str] | None = None,
    channels: int = 3,
    fit: Literal["crop", "pad", "stretch"] = "crop",
    shares: tuple[float, float, float] = (0.7, 0.15, 0.15),
) -> LabelledImages:
    """Read the images of one split.

    The folder has a folder of images for each class: `folder/<class>/*.jpg`. These are split into training, validation
    and test, in the same shares of each class, by the order of their names and always the same. Or it has a folder for
    each split that has these, `folder/train/<class>/*.jpg`, which is taken as it is. Photographs are turned upright as
    the camera noted. Other files, and what begins with a dot, are left out.

    Args:
        folder: Where the folders are.
        split: `train`, `validation` or `test`.
        size: Height and width that all images get.
        class_names: Names of the folders in the order of the labels; `None` is alphabetical, of those for training.
        channels: 1 for grey, 3 for RGB, 4 for RGBA; images are converted.
        fit: What happens to images of another shape: `crop` cuts off what is too much, `pad` adds black, `stretch`
            distorts.
        shares: Of training, validation and test.

    Raises:
        DataFileError: The message lists all that is wrong, with the names of the files.
    """
    folder = Path(folder)
    if channels not in MODES or fit not in FITS:
        raise DataFileError(
            f"channels is {channels!r}, and fit is {fit!r}. Expected 1, 3 or 4 channels, and one of {', '.join(FITS)}."
        )
    has_splits = (folder / "train").is_dir() and not _images(folder / "train")  # else a class of trains
    if has_splits and class_names is None:  # a split without one of the classes must not renumber the others
        class_names = _folders(folder / "train") or None
    names, files, problems = _find(folder / split if has_splits else folder, class_names)
    if not problems and not has_splits:
        files, problems = _split(files, split, shares)
    chosen = [(index, file) for index, name in enumerate(names) for file in files.get(name, ())]
    images = np.empty((0 if problems else len(chosen), *size, channels), np.float32)
    for position, (_, file) in enumerate(chosen):
        try:
            pixels = _read(file, size, channels, fit)
        except Exception as error:  # Pillow raises struct, zlib, SyntaxError and its own
            reason = reason_unreadable(error, file)
            problems.append(f"{file} cannot be read as an image ({reason}). Is it whole? Replace or remove it.")
            continue
        if not problems:
            images[position] = pixels
    refuse(problems)
    return LabelledImages(images, np.array([label for label, _ in chosen], np.int32), [f for _, f in chosen], names)


def balanced_class_weights(labels: np.ndarray, classes: int) -> dict[int, float]:
    """Return weights with which each class counts as much as any other, and the mean over all samples is 1.

    Args:
        labels: Index of each sample's class, whole numbers [samples].
        classes: How many there are; one without samples gets 0.
    """
    counts = np.bincount(labels, minlength=classes)
    there = np.count_nonzero(counts)
    return {index: len(labels) / (there * count) if count else 0.0 for index, count in enumerate(counts.tolist())}


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    inside = sorted(folder.iterdir())
    return [path for path in inside if path.suffix.lower() in ENDINGS and not path.name.startswith(".")]


def _find(folder: Path, class_names: Sequence[str] | None) -> tuple[list[str], dict[str, list[Path]], list[str]]:
    """Names of the classes, their images in order, and what is wrong."""
    if not folder.is_dir():
        return [], {}, [f"{folder} is no folder. Expected one that has a folder of images for each class."]
    found = _folders(folder)
    names = list(class_names) if class_names is not None else found
    if not found:
        return [], {}, [f"{folder} has no folders. Expected a folder of images for each class."]
    problems = []
    for name in sorted(set(found) - set(names)):
        hint = did_you_mean(name, names)
        problems.append(f"{folder / name} is no class. Expected {', '.join(names)}. {hint}".rstrip())
    files: dict[str, list[Path]] = {}
    for name in names:
        files[name] = _images(folder / name) if (folder / name).is_dir() else []
        if name not in found:
            problems.append(f"{folder / name} is missing. Expected a folder of images for each of {', '.join(names)}.")
        elif not files[name]:
            problems.append(f"{folder / name} holds no image. Expected files ending in {', '.join(ENDINGS)}.")
    return names, files, problems


def _split(
    files: Mapping[str, list[Path]], split: str, shares: tuple[float, float, float]
) -> tuple[dict[str, list[Path]], list[str]]:
    """Take the part of each class that belongs to a split; neighbours by name go to different ones."""
    if split not in SPLITS or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        return {}, [
            f"split is {split!r}, and shares are {shares}. Expected one of {', '.join(SPLITS)}, and a sum of 1."
        ]
    edges, number = np.cumsum([0, *shares]), SPLITS.index(split)
    parts, problems = {}, []
    for name, paths in files.items():
        order = np.random.default_rng(0).permutation(len(paths))
        first, last = np.rint(edges[number : number + 2] * len(paths)).astype(int)
        parts[name] = [paths[index] for index in sorted(order[first:last])]
        if not parts[name] and shares[number] > 0:
            where = paths[0].parent
            problems.append(f"{where} has {len(paths)} images, none of which is left for {split}. Add some.")
    return parts, problems


def _read(file: Path, size: tuple[int, int], channels: int, fit: str) -> np.ndarray:
    from PIL import Image, ImageOps

    height, width = size
    image = read_upright(file, channels)
    if fit == "crop":
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    elif fit == "pad":
        image = ImageOps.pad(image, (width, height), Image.Resampling.BILINEAR)
    else:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32).reshape(height, width, channels) * np.float32(1 / 255)
