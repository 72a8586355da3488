"""Large images segmented tile by tile: the served predictions are put together to label maps of full size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments_manager.client.errors import ClientError
from experiments_manager.data.patches.label_pictures import default_colours, write_label_map
from experiments_manager.data.patches.pairs import Pair, as_floats
from experiments_manager.data.patches.rasters import Raster
from experiments_manager.data.patches.scores import class_iou, confusion_matrix, mean_iou
from experiments_manager.data.patches.tiling import Stitcher, Tile, cut_tile, make_tiles

if TYPE_CHECKING:
    from experiments_manager.client.client import Client


class TileRequest(dict):
    """A request for some tiles of an image; it knows which, and so where its answer belongs."""

    source: Pair | Raster
    tiles: Sequence[Tile]
    is_last: bool


class LabelMapClient:
    """A `client` of settings that segments images and writes `<name>.png` for each, with a palette of colours.

    Args:
        images: Images, alone or with their true labels.
        folder: Where the label maps go; it is made.
        size: Height and width of a tile, as the model takes it.
        overlap: Rows and columns that neighbours share at least.
        classes: How many the model tells apart.
        colours: Red, green and blue of each class.
        input_name: The model's input.
        tiles_at_once: Tiles in a request.

    Attributes:
        confusion: Pixels by true and predicted class, of images with true labels, [classes, classes].

    Raises:
        ClientError: Two images have one name, so that one label map would take the place of the other.
    """

    def __init__(
        self,
        images: Sequence[Pair | Raster],
        folder: Path | str,
        size: int,
        overlap: int,
        classes: int,
        *,
        colours: Sequence[tuple[int, int, int]] | None = None,
        input_name: str = "image",
        tiles_at_once: int = 8,
    ) -> None:
        _check_names(images)
        self.folder = Path(folder)
        self.confusion = np.zeros((classes, classes), np.int64)
        self._images, self._size, self._overlap, self._classes = images, size, overlap, classes
        self._colours = colours or default_colours(classes)
        self._input_name, self._tiles_at_once = input_name, tiles_at_once
        self._stitcher: Stitcher | None = None

    def requests(self) -> Iterator[TileRequest]:
        """Yield the tiles of all images, some at a time."""
        for source in self._images:
            yield from tile_requests(source, self._size, self._overlap, self._input_name, self._tiles_at_once)

    def on_response(self, request: TileRequest, outputs: Any) -> None:
        """Put an answer where it belongs; after the last of an image, write its label map."""
        source = request.source
        if self._stitcher is None:
            height, width = _raster(source).shape[:2]
            self._stitcher = Stitcher(height, width, self._size, self._classes)
        add_answer(self._stitcher, request, outputs)
        if request.is_last:
            self._finish(source, self._stitcher.finish())
            self._stitcher = None

    def _finish(self, source: Pair | Raster, predicted: np.ndarray) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_label_map(self.folder / f"{_raster(source).file.stem}.png", predicted, self._colours)
        if isinstance(source, Pair):
            labels = source.label_window(0, 0, *source.size)
            self.confusion += confusion_matrix(labels, predicted, self._classes)

    def close(self) -> None:
        """Do nothing more: label maps are written as they are finished."""

    @property
    def class_iou(self) -> np.ndarray:
        """Intersection over union of each class so far."""
        return class_iou(self.confusion)

    @property
    def mean_iou(self) -> float:
        """Mean intersection over union of the classes that occur."""
        return mean_iou(self.confusion)


def _check_names(images: Sequence[Pair | Raster]) -> None:
    first: dict[str, Path] = {}
    for source in images:
        file = _raster(source).file
        if (other := first.setdefault(file.stem, file)) is not file:
            raise ClientError(
                f"{other} and {file} would both have the label map {file.stem}.png. Expected another name for each "
                "image. Use a folder for each of them, or rename one."
            )


def tile_requests(
    source: Pair | Raster, size: int, overlap: int, input_name: str = "image", tiles_at_once: int = 8
) -> Iterator[TileRequest]:
    """Yield the tiles of one image in requests, in the order of `make_tiles`; see `LabelMapClient`."""
    raster = _raster(source)
    height, width, _ = raster.shape
    tiles = make_tiles(height, width, size, overlap)
    for first in range(0, len(tiles), tiles_at_once):
        some = tiles[first : first + tiles_at_once]
        pixels = [as_floats(cut_tile(raster.window, tile, (height, width), size)) for tile in some]
        request = TileRequest({input_name: np.stack(pixels)})
        request.source, request.tiles, request.is_last = source, some, first + tiles_at_once >= len(tiles)
        yield request


def add_answer(stitcher: Stitcher, request: TileRequest, outputs: Any) -> None:
    """Hand the predictions for some tiles to the stitcher.

    Raises:
        ClientError: The model does not answer with probabilities for each pixel.
    """
    given = list(outputs.values())
    if len(given) != 1:
        raise ClientError(f"The model has the outputs {', '.join(outputs)}. Expected one, probabilities of classes.")
    try:
        for tile, probabilities in zip(request.tiles, given[0], strict=True):
            stitcher.add(tile, probabilities)
    except ValueError as error:
        raise ClientError(f"The model's answer is no label map: {error}") from error


def segment_image(
    client: Client, image: Raster, size: int, overlap: int, classes: int, *, labels: np.ndarray | None = None
) -> np.ndarray:
    """Segment one large image by a served model.

    Args:
        client: Asks the server.
        image: The image.
        size: Height and width of a tile, as the model takes it.
        overlap: Rows and columns that neighbours share at least.
        classes: How many the model tells apart.
        labels: Where the classes go, uint8 [height, width], such as an array on the disk; `None` makes one in memory.

    Returns:
        The class of each pixel, uint8 [height, width].

    Raises:
        ClientError: As for `Client.stream`; or the model does not answer with probabilities for each pixel.
    """
    height, width, _ = image.shape
    stitcher = Stitcher(height, width, size, classes, labels)
    (input_name,) = client.info().inputs
    for request, outputs in client.stream(tile_requests(image, size, overlap, input_name)):
        add_answer(stitcher, request, outputs)
    return stitcher.finish()


def _raster(source: Pair | Raster) -> Raster:
    return source.image if isinstance(source, Pair) else source
