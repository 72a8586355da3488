"""Tiles that cover a large image with some overlap, and the way back from tiles to the whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from experiments_manager.common.tables.problems import DataFileError
from experiments_manager.data.patches.pairs import IGNORED


@dataclasses.dataclass(frozen=True)
class Tile:
    """A window of an image, and the part of it that no other tile sees better.

    Attributes:
        top: First row of the window.
        left: First column.
        own: First row, first column, and the row and column behind the last, counted in the window. The own parts of
            all tiles cover each pixel of the image once.
    """

    top: int
    left: int
    own: tuple[int, int, int, int]


def make_tiles(height: int, width: int, size: int, overlap: int) -> list[Tile]:
    """Cover an image with square tiles, row by row.

    The last of a row and of a column is moved inwards, so that it ends with the image. An image that is smaller than a
    tile has one, which reaches over its end.

    Args:
        height: Rows of the image.
        width: Columns of the image.
        size: Height and width of a tile.
        overlap: Rows and columns that neighbours share at least.

    Raises:
        DataFileError: The overlap is not less than half a tile.
    """
    if not 0 <= 2 * overlap < size:
        raise DataFileError(
            f"An overlap of {overlap} does not suit tiles of {size}. Expected less than half of a tile."
        )
    rows, columns = _spans(height, size, overlap), _spans(width, size, overlap)
    return [Tile(top, left, (r0, c0, r1, c1)) for top, r0, r1 in rows for left, c0, c1 in columns]


def _spans(length: int, size: int, overlap: int) -> list[tuple[int, int, int]]:
    """First index of each tile along one side, and begin and end of its own part."""
    count = max(1, -(-(length - overlap) // (size - overlap)))
    starts = [min(number * (size - overlap), max(0, length - size)) for number in range(count)]
    middles = [(start + size + following) // 2 for start, following in zip(starts, starts[1:], strict=False)]
    edges = [0, *middles, length]
    return [(start, edges[i] - start, edges[i + 1] - start) for i, start in enumerate(starts)]


def cut_tile(
    window: Callable[[int, int, int, int], np.ndarray],
    tile: Tile,
    image_size: tuple[int, int],
    size: int,
    fill: float | None = None,
) -> np.ndarray:
    """Cut a tile; what lies outside of the image is its mirror image, or `fill`.

    Args:
        window: Gives an array for top, left, height and width.
        tile: Which one.
        image_size: Height and width of the image.
        size: Height and width of the tile.
        fill: Value of what lies outside; `None` mirrors.

    Returns:
        Of shape [size, size, …].
    """
    height, width = min(size, image_size[0] - tile.top), min(size, image_size[1] - tile.left)
    cut = window(tile.top, tile.left, height, width)
    if (height, width) == (size, size):
        return cut
    missing = [(0, size - height), (0, size - width), *[(0, 0)] * (cut.ndim - 2)]
    if fill is None:
        return np.pad(cut, missing, mode="symmetric")
    return np.pad(cut, missing, constant_values=fill)


def keep_own(labels: np.ndarray, tile: Tile) -> np.ndarray:
    """Return the labels of a tile, `IGNORED` outside of its own part, so that scores count each pixel once."""
    kept = np.full_like(labels, IGNORED)
    r0, c0, r1, c1 = tile.own
    kept[r0:r1, c0:c1] = labels[r0:r1, c0:c1]
    return kept


class Stitcher:
    """Puts the predictions for tiles together: where tiles overlap, each counts the more the farther its edge is.

    Holds as many rows as a tile has, so that images may be large; finished rows go to `labels`.

    Args:
        height: Rows of the image.
        width: Columns of the image.
        size: Height and width of the tiles.
        classes: How many there are.
        labels: Where the classes go, uint8 [height, width], such as an array on the disk; `None` makes one in memory.
    """

    def __init__(self, height: int, width: int, size: int, classes: int, labels: np.ndarray | None = None) -> None:
        self.labels = np.zeros((height, width), np.uint8) if labels is None else labels
        self._size, self._top = size, 0
        self._sums = np.zeros((size, width, classes), np.float32)
        ramp = np.minimum(np.arange(1, size + 1), np.arange(size, 0, -1)).astype(np.float32) / size
        self._weights = (ramp[:, np.newaxis] * ramp)[..., np.newaxis]

    def add(self, tile: Tile, probabilities: np.ndarray) -> None:
        """Add the prediction for a tile; tiles come in the order of `make_tiles`.

        Args:
            tile: Which one.
            probabilities: Of shape [size, size, classes].

        Raises:
            ValueError: The shape is another, or a tile above was finished already.
        """
        expected = (self._size, self._size, self._sums.shape[2])
        if probabilities.shape != expected:
            raise ValueError(f"A tile has predictions of shape {probabilities.shape}. Expected {expected}.")
        if tile.top < self._top:
            raise ValueError(f"The tile at row {tile.top} comes after one at row {self._top}. Expected tiles in order.")
        self._finish_rows_above(tile.top)
        width = min(self._size, self.labels.shape[1] - tile.left)
        weighted = (probabilities * self._weights)[:, :width]
        self._sums[:, tile.left : tile.left + width] += weighted

    def finish(self) -> np.ndarray:
        """Return the classes of all pixels, uint8 [height, width], after the last tile."""
        self._finish_rows_above(len(self.labels))
        return self.labels

    def _finish_rows_above(self, top: int) -> None:
        done = min(top, len(self.labels), self._top + self._size) - self._top
        if done <= 0:
            return
        self.labels[self._top : self._top + done] = self._sums[:done].argmax(axis=-1)
        self._sums[: -done or None] = self._sums[done:].copy() if done < self._size else 0
        self._sums[self._size - done :] = 0
        self._top += done
