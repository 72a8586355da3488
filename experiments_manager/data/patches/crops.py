"""Where random crops are taken from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments_manager.common.tables.problems import DataFileError
from experiments_manager.data.patches.pairs import Pair


class CropPlan:
    """Draws crops from large images, some of them upon classes in equal shares.

    Args:
        pairs: Images and label maps.
        size: Height and width of a crop.
        balance: Share of the crops that are placed upon a pixel of a class drawn before.

    Raises:
        DataFileError: There is no pair, an image is smaller than a crop, or the share is none; all at once.
    """

    def __init__(self, pairs: Sequence[Pair], size: int, balance: float) -> None:
        small = [pair for pair in pairs if min(pair.size) < size]
        problems = [
            f"{pair.image.file} is {pair.size[0]}x{pair.size[1]} (height x width). Expected {size}x{size} at least, "
            "the size of a crop."
            for pair in small
        ]
        if not pairs:
            problems.append("No pairs to take crops from. Expected one at least.")
        if not 0 <= balance <= 1:
            problems.append(f"balance is {balance}. Expected a share from 0 to 1.")
        if problems:
            raise DataFileError("\n".join(problems))
        self._pairs, self._size, self._balance = list(pairs), size, balance
        areas = np.array([np.prod([side - size + 1 for side in pair.size]) for pair in pairs], float)
        self._by_area = np.cumsum(areas / areas.sum())
        self._classes = sorted({index for pair in pairs for index in pair.positions})
        pixels = np.array([pair.pixels for pair in pairs], float)
        self._by_pixels = np.cumsum(pixels / np.maximum(pixels.sum(axis=0), 1), axis=0)

    def draw(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return a crop, float32 [size, size, channels], and its classes, uint8 [size, size]."""
        if self._classes and generator.random() < self._balance:
            pair, top, left = self._upon_a_class(generator)
        else:
            pair = self._pairs[_drawn(self._by_area, generator)]
            top, left = (generator.integers(side - self._size + 1) for side in pair.size)
        window = int(top), int(left), self._size, self._size
        return pair.image_window(*window), pair.label_window(*window)

    def _upon_a_class(self, generator: np.random.Generator) -> tuple[Pair, int, int]:
        """Draw a class, an image by how much it has of it, a pixel of it, and where in the crop that pixel lies."""
        index = self._classes[generator.integers(len(self._classes))]
        pair = self._pairs[_drawn(self._by_pixels[:, index], generator)]
        positions = pair.positions[index]
        pixel = positions[generator.integers(len(positions))]
        first = pixel - generator.integers(self._size, size=2)
        top, left = np.clip(first, 0, np.array(pair.size) - self._size)
        return pair, top, left


def _drawn(cumulative: np.ndarray, generator: np.random.Generator) -> int:
    """Draw an index by its share; one whose share is 0 is never drawn."""
    return int(np.searchsorted(cumulative, generator.random() * cumulative[-1], side="right"))
