"""Arrays as pictures: what a model takes or gives, as far as a person can look at it."""

from __future__ import annotations

from typing import Any

import numpy as np

_LEAST_SIDE = 4
_MOST_CHANNELS = 16
_MOST_SLENDER = 4
"""Height to width (or the reverse) up to which an array without channels is taken for a picture."""


def picture_input(x: Any) -> np.ndarray | None:
    """Find the first input that is a batch of pictures.

    Args:
        x: Inputs, nested.

    Returns:
        Bytes [n, height, width, 3], or `None` where no input is one.
    """
    for array in _flat(x):
        if _is_picture(array):
            return as_bytes(array)
    return None


def series_input(x: Any) -> np.ndarray | None:
    """Find the first input that is a batch of series, floats [n, steps, channels]; `None` where there is none."""
    for array in _flat(x):
        if array.ndim == 3 and array.shape[1] >= _LEAST_SIDE and array.dtype.kind in "fiu" and not _is_picture(array):
            return array.astype(np.float64)
    return None


def scalar_input(x: Any) -> np.ndarray | None:
    """Give the one number that a sample consists of, floats [n]; `None` where there are more."""
    arrays = _flat(x)
    if len(arrays) == 1 and arrays[0].dtype.kind in "fiu" and arrays[0].size == len(arrays[0]):
        return arrays[0].reshape(-1).astype(np.float64)
    return None


def as_bytes(batch: np.ndarray) -> np.ndarray:
    """Turn pictures into bytes for the eye.

    Bytes stay as they are; numbers in 0..1, -1..1 and 0..255 are taken for just that; all else is stretched from the
    smallest to the largest value of the batch. What is not finite becomes black.

    Args:
        batch: [n, height, width] or [n, height, width, channels]. Of 2 channels the first is shown, of 5 and more the
            first three, and of 4 (with transparency) all but the last.

    Returns:
        Bytes [n, height, width, 3].
    """
    batch = np.asarray(batch)
    batch = batch[..., np.newaxis] if batch.ndim == 3 else batch
    batch = batch[..., :1] if batch.shape[-1] in (1, 2) else batch[..., :3]
    if batch.dtype != np.uint8:
        batch = (255 * _in_zero_to_one(batch.astype(np.float32)) + 0.5).astype(np.uint8)
    return np.broadcast_to(batch, (*batch.shape[:-1], 3))


def _in_zero_to_one(values: np.ndarray) -> np.ndarray:
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    if low >= 0 and high <= 1:
        return values
    if low >= -1 and high <= 1:
        return (values + 1) / 2
    if low >= 0 and 1 < high <= 255 and np.all(values == np.floor(values)):
        return values / 255
    return (values - low) / max(high - low, 1e-12)


def _flat(x: Any) -> list[np.ndarray]:
    if isinstance(x, dict):
        return [array for name in sorted(x) for array in _flat(x[name])]
    if isinstance(x, (list, tuple)):
        return [array for item in x for array in _flat(item)]
    return [np.asarray(x)]


def _is_picture(array: np.ndarray) -> bool:
    if array.dtype.kind not in "fiub" or array.ndim not in (3, 4):
        return False
    height, width = array.shape[1:3]
    if min(height, width) < _LEAST_SIDE:
        return False
    if array.ndim == 4:
        return array.shape[3] <= _MOST_CHANNELS
    return min(height, width) >= 2 * _LEAST_SIDE and max(height, width) <= _MOST_SLENDER * min(height, width)
