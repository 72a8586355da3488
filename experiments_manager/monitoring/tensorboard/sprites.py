"""Many thumbnails in one picture, as TensorBoard's Projector takes them."""

from __future__ import annotations

import io
import math

import numpy as np

LARGEST_SPRITE = 2560
"""Pixels a side, 36 for each of 5000 thumbnails. The Projector takes 8192, but a browser loads all of it."""
LARGEST_THUMBNAIL = 64
SMALLEST_THUMBNAIL = 32
"""Smaller images are enlarged by a whole number, so that their pixels stay sharp."""


def sprite(images: np.ndarray) -> tuple[bytes, tuple[int, int]]:
    """Set thumbnails into a grid, row by row.

    Args:
        images: Numbers `[samples, height, width, channels]` with 1, 3 or 4 channels, in 0..1, 0..255 or any other
            range, which is then stretched from the smallest to the largest value.

    Returns:
        The grid as a PNG, and width and height of one thumbnail in pixels.
    """
    from PIL import Image

    count, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(count))
    wide, high = _thumbnail_size(width, height, columns)
    pixels = as_bytes(images)
    pixels = pixels[..., 0] if channels == 1 else pixels
    if (wide, high) != (width, height):
        method = Image.Resampling.NEAREST if wide > width else Image.Resampling.BOX
        pixels = np.stack([np.asarray(Image.fromarray(image).resize((wide, high), method)) for image in pixels])
    rows = math.ceil(count / columns)
    grid = np.zeros((rows * columns, *pixels.shape[1:]), np.uint8)
    grid[:count] = pixels
    grid = grid.reshape(rows, columns, *pixels.shape[1:]).swapaxes(1, 2)
    grid = grid.reshape(rows * high, columns * wide, *pixels.shape[3:])
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grid)).save(file, "png", compress_level=1)
    return file.getvalue(), (wide, high)


def shrink(images: np.ndarray) -> np.ndarray:
    """Average images over blocks of pixels until they are no larger than a thumbnail; range and type stay.

    Args:
        images: Numbers `[samples, height, width, channels]`.
    """
    count, height, width, channels = images.shape
    block = math.ceil(max(height, width) / LARGEST_THUMBNAIL)
    rows, columns = height // block, width // block
    if block < 2 or not rows or not columns:
        return images
    blocks = images[:, : rows * block, : columns * block].reshape(count, rows, block, columns, block, channels)
    return blocks.mean(axis=(2, 4), dtype=np.float32).astype(images.dtype)


def as_bytes(images: np.ndarray) -> np.ndarray:
    """Bring images to 0..255, uint8."""
    if images.dtype == np.uint8:
        return images
    images = np.nan_to_num(np.asarray(images, np.float32))
    low, high = float(images.min()), float(images.max())
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    images -= low  # in place, on the copy from above: there may be thousands
    images *= 255.0 / ((high - low) or 1.0)
    images += 0.5
    return images.clip(0, 255, out=images).astype(np.uint8)


def _thumbnail_size(width: int, height: int, columns: int) -> tuple[int, int]:
    """Width and height that keep the proportions and let the grid stay within `LARGEST_SPRITE`."""
    largest = min(LARGEST_THUMBNAIL, LARGEST_SPRITE // columns)
    longest = max(width, height)
    if longest > largest:
        return max(1, width * largest // longest), max(1, height * largest // longest)
    factor = max(1, min(SMALLEST_THUMBNAIL, largest) // longest)
    return width * factor, height * factor
