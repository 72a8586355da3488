"""Batches of crops and tiles, as the engine asks for them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from experiments_manager.common.tables.problems import DataFileError
from experiments_manager.data.patches.pairs import IGNORED, Pair
from experiments_manager.data.patches.tiling import cut_tile, keep_own, make_tiles


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


WORKERS = min(4, os.cpu_count() or 1)
"""Threads that cut crops and tiles; which they are does not depend on it."""
Augment = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]


class RandomCrops(keras.utils.PyDataset):
    """Random crops for training. Which they are follows from `(seed, epoch, index)` alone, so a resume is exact.

    Args:
        pairs: Images and label maps of at least `size`.
        size: Height and width of a crop.
        batch_size: Crops in a batch.
        batches: Batches in an epoch.
        seed: The run's seed.
        balance: Share of the crops that are placed upon a pixel of a class, each class as often as the others; the
            rest is placed anywhere, each pixel of all images as often as the others.
        augment: Called with a crop, its labels and a generator to draw from; by default crops are mirrored and
            turned by quarters.
        **options: `workers`, as for `keras.utils.PyDataset`; by default as many threads as processors, up to 4.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        size: int,
        batch_size: int,
        *,
        batches: int,
        seed: int,
        balance: float = 0.5,
        augment: Augment | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**{"workers": WORKERS, **options})
        self._plan = CropPlan(pairs, size, balance)
        self._batch_size, self._batches, self._seed = batch_size, batches, seed
        self._augment = augment or mirror_and_turn

    def __len__(self) -> int:
        """Return how many batches an epoch has."""
        return self._batches

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a batch of the first epoch."""
        return self.batch_of_epoch(0, index)

    def batch_of_epoch(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return crops, float32 [batch, size, size, channels], and classes, uint8 [batch, size, size].

        Args:
            epoch: Counted from 0.
            index: Of the batch.
        """
        generator = np.random.default_rng([self._seed, epoch, index])
        crops = [self._augment(*self._plan.draw(generator), generator) for _ in range(self._batch_size)]
        images, labels = zip(*crops, strict=True)
        return np.stack(images), np.stack(labels)


def mirror_and_turn(
    image: np.ndarray, labels: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mirror a crop or not, and turn it by 0 to 3 quarters."""
    quarters, mirrored = generator.integers(4), generator.integers(2)
    image, labels = np.rot90(image, quarters), np.rot90(labels, quarters)
    return (image[:, ::-1], labels[:, ::-1]) if mirrored else (image, labels)


class Tiles(keras.utils.PyDataset):
    """All tiles of all images, for validation.

    Of what tiles share, one of them keeps the labels, so that scores count each pixel once.

    Args:
        pairs: Images and label maps.
        size: Height and width of a tile.
        batch_size: Tiles in a batch.
        overlap: Rows and columns that neighbours share at least.
        **options: `workers`, as for `keras.utils.PyDataset`; by default as many threads as processors, up to 4.
    """

    def __init__(self, pairs: Sequence[Pair], size: int, batch_size: int, *, overlap: int = 0, **options: Any) -> None:
        super().__init__(**{"workers": WORKERS, **options})
        self._tiles = [(pair, tile) for pair in pairs for tile in make_tiles(*pair.size, size, overlap)]
        self._size, self._batch_size = size, batch_size

    def __len__(self) -> int:
        """Return how many batches there are."""
        return -(-len(self._tiles) // self._batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return tiles, float32 [batch, size, size, channels], and classes, uint8 [batch, size, size]."""
        images, labels = [], []
        for pair, tile in self._tiles[index * self._batch_size : (index + 1) * self._batch_size]:
            images.append(cut_tile(pair.image_window, tile, pair.size, self._size))
            cut = cut_tile(pair.label_window, tile, pair.size, self._size, fill=IGNORED)
            labels.append(keep_own(cut, tile))
        return np.stack(images), np.stack(labels)
