"""Folders of images with a table of labels, read into arrays."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from experiments_manager.common.tables.problems import DataFileError, refuse
from experiments_manager.data.bit_depths import MODES, as_bytes, has_16_bits, reason_unreadable
from experiments_manager.data.label_tables import LabelTable, label_indices, read_label_table

IMAGE_FORMATS = "PNG, JPEG, TIFF, WebP, GIF or BMP"


def read_image_table(
    folder: Path | str,
    labels: str = "labels.csv",
    split: str | None = None,
    *,
    class_names: Sequence[str] | None = None,
    file_column: str = "file",
    label_column: str = "label",
    size: tuple[int, int] | None = None,
    channels: int = 3,
) -> tuple[np.ndarray, np.ndarray]:
    """Read images and their labels as arrays, in the order of the table.

    All images are held in memory: 4 bytes a pixel and channel. Photographs are turned upright as the camera noted.

    Args:
        folder: Where the table is; files named in it are relative to this folder.
        labels: Name of the table, a CSV file with a header.
        split: Read only the rows with this word in the column `split`; `None` reads all.
        class_names: Turns labels that are words into their index in this list; see `label_indices`.
        file_column: Column that names the image files.
        label_column: Column with the label, a word or a whole number.
        size: Height and width to resize to (bilinear, antialiased); `None` demands that all images have one size.
        channels: 1 for grey, 3 for RGB, 4 for RGBA; images are converted. Greys of 16 bits are kept, colours have 8.

    Returns:
        Images, `float32` of shape [images, height, width, channels] in 0..1, and labels, `int32` of shape [images].

    Raises:
        DataFileError: Something is missing or cannot be read; the message names the file, and its line in the table.
    """
    if channels not in MODES:
        raise DataFileError(f"channels is {channels!r}. Expected 1, 3 or 4.")
    folder = Path(folder)
    if not folder.is_dir():
        raise DataFileError(f"{folder} does not exist. Expected a folder that holds {labels} and images.")
    table = read_label_table(folder / labels, split, file_column, label_column)
    indices = label_indices(table, class_names)
    paths = [folder / file for file in table.files]
    refuse(
        f"{table.path}, line {row}: file {path} not found. Add it or remove the row."
        for path, row in zip(paths, table.rows, strict=True)
        if not path.is_file()
    )
    return _read_images(paths, table, size, channels), indices


def _read_images(paths: Sequence[Path], table: LabelTable, size: tuple[int, int] | None, channels: int) -> np.ndarray:
    """Decode on all processors straight into one array, so that memory holds the data set once."""
    shape = next((found.shape for path in paths if isinstance(found := _read(path, size, channels), np.ndarray)), None)
    images = np.empty((len(paths) if shape else 0, *(shape or ())), np.float32)

    def read(position: int) -> str | None:
        pixels = _read(paths[position], size, channels)
        if isinstance(pixels, str):
            return f"{paths[position]} {pixels}"
        if pixels.shape != shape:
            return (
                f"{paths[position]} is {_pixels(pixels.shape)} (height x width). Expected {_pixels(images.shape[1:])} "
                "like the images before it. Give size=(height, width) to resize all."
            )
        images[position] = pixels
        return None

    with ThreadPoolExecutor() as threads:
        found = threads.map(read, range(len(paths)))
        refuse(f"{table.path}, line {row}: {text}" for row, text in zip(table.rows, found, strict=True) if text)
    return images


def _read(path: Path, size: tuple[int, int] | None, channels: int) -> np.ndarray | str:
    """Return an image, float32 [height, width, channels] in 0..1, or what is wrong with it."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened)
            if has_16_bits(picture, opened.format):
                picture = Image.fromarray(np.asarray(picture).astype(np.float32) * np.float32(255 / 65535))
            else:
                picture = as_bytes(picture, MODES[channels], opened.format)
    except Exception as error:  # Pillow raises struct, zlib, SyntaxError and its own
        return f"cannot be read as an image ({reason_unreadable(error, path)}). Expected {IMAGE_FORMATS}, whole."
    if size is not None and picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)  # Pillow's is antialiased
    pixels = np.asarray(picture, np.float32).reshape(picture.height, picture.width, -1) * np.float32(1 / 255)
    if pixels.shape[2] == channels:
        return pixels
    opaque = [np.ones_like(pixels)] if channels == 4 else []  # 16 bits
    return np.concatenate([pixels, pixels, pixels, *opaque], axis=2)


def _pixels(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"
