"""Folders of images with a table of labels, read into arrays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from experiments_manager.data.tables import DataFileError, LabelTable, label_indices, raise_all, read_label_table

_ORIENTATION = 0x0112  # of EXIF
IMAGE_FORMATS = "PNG, JPEG, GIF or BMP"


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
        class_names: Turns labels that are words into their index in this list; see `tables.label_indices`.
        file_column: Column that names the image files.
        label_column: Column with the label, a word or a whole number.
        size: Height and width to resize to (bilinear, antialiased); `None` demands that all images have one size.
        channels: 1 for grey, 3 for RGB, 4 for RGBA; images are converted.

    Returns:
        Images, `float32` of shape [images, height, width, channels] in 0..1, and labels, `int32` of shape [images].

    Raises:
        DataError: Something is missing or cannot be read; the message names the file, and its row in the table.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataFileError(f"{folder} does not exist. Expected a folder that holds {labels} and images.")
    table = read_label_table(folder / labels, split, file_column, label_column)
    indices = label_indices(table, class_names)
    paths = [folder / file for file in table.files]
    raise_all(
        f"{table.path}, row {row}: file {path} not found. Add it or remove the row."
        for path, row in zip(paths, table.rows, strict=True)
        if not path.is_file()
    )
    return _read_images(paths, table, size, channels), indices


def _read_images(paths: Sequence[Path], table: LabelTable, size: tuple[int, int] | None, channels: int) -> np.ndarray:
    """Decode on all processors straight into one array, so that memory holds the data set once."""
    import tensorflow as tf

    def decode(path: tf.Tensor, turns: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(tf.io.read_file(path), channels, tf.float32, expand_animations=False)
        image = tf.cond(turns[0], lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
        image = tf.reverse(image, tf.boolean_mask([0, 1], turns[1:]))
        return image if size is None else tf.image.resize(image, size, antialias=True)

    with ThreadPoolExecutor() as threads:
        turns = list(threads.map(_turns, paths))
    decoded = tf.data.Dataset.from_tensor_slices(([os.fsencode(path) for path in paths], turns))
    decoded = decoded.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)
    iterator = decoded.as_numpy_iterator()
    images: np.ndarray | None = None
    for position, path in enumerate(paths):
        try:
            image = next(iterator)
        except tf.errors.OpError as error:
            _raise_unreadable(paths, table, position, channels)
            raise DataFileError(
                f"{table.path}: an image could not be read at first, but could again; is the disk at fault?"
            ) from error
        if images is None:
            images = np.empty((len(paths), *image.shape), np.float32)
        elif image.shape != images.shape[1:]:
            raise DataFileError(
                f"{table.path}, row {table.rows[position]}: {path} is {_pixels(image.shape)} (height x width). "
                f"Expected {_pixels(images.shape[1:])} like the images before it. "
                "Give size=(height, width) to resize all."
            )
        images[position] = image
    return images


def _turns(path: Path) -> tuple[bool, bool, bool]:
    """Whether rows and columns change places, then rows are reversed, and columns, to turn a photograph upright."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # TensorFlow says what is wrong with it
        orientation = 1
    return orientation in (5, 6, 7, 8), orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)


def _raise_unreadable(paths: Sequence[Path], table: LabelTable, position: int, channels: int) -> None:
    """Find the images that fail, decoding one after the other: errors of a parallel map may come early."""
    import tensorflow as tf

    problems = []
    for path, row in zip(paths[position:], table.rows[position:], strict=True):
        try:
            tf.io.decode_image(path.read_bytes(), channels, expand_animations=False)
        except (OSError, tf.errors.OpError):
            problems.append(
                f"{table.path}, row {row}: {path} cannot be read as an image. Expected {IMAGE_FORMATS}, whole."
            )
    raise_all(problems)


def _pixels(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"
