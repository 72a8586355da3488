"""One large image that windows are read from, whether it is in memory, mapped from the disk or read tile by tile."""

from __future__ import annotations

import importlib.util
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments_manager.common.installation import install_command
from experiments_manager.common.tables.problems import DataFileError

IMAGE_ENDINGS = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".webp", ".npy")
MEMORY_LIMIT = 256 * 2**20
"""Bytes of one image from which a TIFF that cannot be mapped is read window by window."""
_ROWS_AT_ONCE = 1024


class Raster:
    """An image, whole numbers, floating point or bits, of shape [height, width, channels].

    Args:
        file: Where it comes from.
        shape: Height, width and channels.
        dtype: Type of the values.
        has_palette: Whether they are indices of colours.
        read: Gives the window `[top, left, height, width]`, which lies inside, as an array with channels.
    """

    def __init__(
        self,
        file: Path,
        shape: tuple[int, int, int],
        dtype: np.dtype,
        read: Callable[[int, int, int, int], np.ndarray],
        has_palette: bool = False,
    ) -> None:
        self.file, self.shape, self.dtype, self._read = file, shape, np.dtype(dtype), read
        self.has_palette = has_palette

    def window(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Return a copy of a window, [height, width, channels].

        Raises:
            DataFileError: It cannot be read.
        """
        try:
            return np.array(self._read(top, left, height, width))
        except (OSError, ValueError) as error:
            raise _unreadable(self.file, error) from error

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the image in blocks of rows: number of the first row, and the rows [rows, width, channels]."""
        height, width, _ = self.shape
        for top in range(0, height, _ROWS_AT_ONCE):
            yield top, self.window(top, 0, min(_ROWS_AT_ONCE, height - top), width)


def open_raster(file: Path | str, *, memory_limit: int = MEMORY_LIMIT) -> Raster:
    """Open an image.

    `.npy` files and TIFFs whose pixels lie in the file as they are (not compressed, not tiled) are mapped into memory,
    and may be larger than it. Other TIFFs of more than `memory_limit` bytes are read window by window where rasterio
    is installed. Everything else is decoded at once. Of images with a palette the indices are what counts; photographs
    are turned upright as the camera noted.

    Args:
        file: PNG, TIFF, GeoTIFF, JPEG, BMP, WebP or NumPy array.
        memory_limit: Bytes of one image.

    Raises:
        DataFileError: It cannot be read.
    """
    file = Path(file)
    ending = file.suffix.lower()
    if ending not in IMAGE_ENDINGS:
        raise DataFileError(f"{file} has an unknown ending. Expected one of {', '.join(IMAGE_ENDINGS)}.")
    try:
        if ending == ".npy":
            return _of_array(file, np.load(file, mmap_mode="r", allow_pickle=False))
        if ending in (".tif", ".tiff"):
            return _open_tiff(file, memory_limit)
        return _of_array(file, *_decode(file))
    except ImportError as error:
        raise DataFileError(f"{file} cannot be read: {error}. Run: {install_command('images')}") from error
    except DataFileError:
        raise
    except Exception as error:  # the libraries raise struct, zlib, SyntaxError and their own
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> DataFileError:
    text = " ".join(str(error).split()).replace(str(file), "it").rstrip(".") or type(error).__name__
    what = "Install it, or write the file otherwise" if "imagecodecs" in text else "Is it whole? Replace or remove it"
    return DataFileError(f"{file} cannot be read as an image ({text}). {what}.")


def _of_array(file: Path, array: np.ndarray, has_palette: bool = False) -> Raster:
    if array.ndim == 2:
        array = array[..., np.newaxis]
    if array.ndim != 3 or array.dtype.kind not in "biuf":
        raise DataFileError(
            f"{file} has the shape {list(array.shape)} and type {array.dtype}. "
            "Expected numbers of shape [height, width] or [height, width, channels]."
        )

    def read(top: int, left: int, height: int, width: int) -> np.ndarray:
        return array[top : top + height, left : left + width]

    return Raster(file, array.shape, array.dtype, read, has_palette)


def _decode(file: Path) -> tuple[np.ndarray, bool]:
    """Pixels, and whether they are indices of colours."""
    from PIL import Image, ImageOps

    Image.MAX_IMAGE_PIXELS, limit = None, Image.MAX_IMAGE_PIXELS  # large images are what this is for
    try:
        with Image.open(file) as image:
            return np.asarray(ImageOps.exif_transpose(image)), image.mode == "P"
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _open_tiff(file: Path, memory_limit: int) -> Raster:
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        series = tiff.series[0]
        axes, shape = series.axes, series.shape
        is_mappable = series.dataoffset is not None and not series.keyframe.is_tiled
        size = series.size * series.dtype.itemsize
        has_palette = series.keyframe.photometric == tifffile.PHOTOMETRIC.PALETTE
        alike = sum((other.shape, other.dtype) == (shape, series.dtype) for other in tiff.series)
    if alike > 1:
        raise DataFileError(f"{file} holds {alike} images of one size. Expected one. Write each to a file of its own.")
    if len(shape) not in (2, 3):
        raise DataFileError(
            f"{file} has the dimensions {axes} {list(shape)}. Expected one image, with or without channels."
        )
    if not is_mappable and size > memory_limit and importlib.util.find_spec("rasterio"):
        return _open_windows(file, has_palette)
    array = tifffile.memmap(file, mode="r") if is_mappable else tifffile.imread(file)
    channels_first = array.ndim == 3 and axes[-2:] == "YX"
    return _of_array(file, np.moveaxis(array, 0, -1) if channels_first else array, has_palette)


def _open_windows(file: Path, has_palette: bool) -> Raster:
    """Read a TIFF with rasterio, which decodes the tiles of a window alone."""
    import rasterio
    from rasterio.windows import Window

    with warnings.catch_warnings():  # where it lies on earth is of no account here
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        source: Any = rasterio.open(file)
    turn = threading.Lock()  # one dataset of GDAL serves one thread at a time

    def read(top: int, left: int, height: int, width: int) -> np.ndarray:
        with turn:
            return np.moveaxis(source.read(window=Window(left, top, width, height)), 0, -1)

    shape = source.height, source.width, source.count
    return Raster(file, shape, np.dtype(source.dtypes[0]), read, has_palette)
