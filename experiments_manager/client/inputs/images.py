"""Image files, cameras and videos, made to fit a model's input.

Pixels are 0 to 1 where the input is of floating point, as `data.read_image_table` gives them, and 0 to 255 where it
is of integers. They are resized to the input's height and width, and turned into grey, RGB or RGBA as its channels
ask. To an input of strings, files are sent as they are, encoded.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments_manager.client.inputs.request_sample import SourceError
from experiments_manager.client.model_info import TensorInfo
from experiments_manager.common.installation import install_command

logger = logging.getLogger(__name__)

IMAGES = frozenset([".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"])
VIDEOS = frozenset([".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"])
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def read_image(file: Path, tensor: TensorInfo, scale: float | None = None) -> np.ndarray:
    """Read an image file, with Pillow where it is installed, else with OpenCV.

    Photographs are turned upright as the camera noted. For an input of strings it is not decoded.

    Args:
        file: The file.
        tensor: The input that it is for.
        scale: What pixel values of 0 to 255 are multiplied by; see the head of this module for the default.

    Returns:
        `[height, width, channels]`, or `[height, width]` for an input without channels, in the input's type; the whole
        file, of shape `[]`, for an input of strings.

    Raises:
        SourceError: It cannot be read, or the model does not take images.
    """
    if tensor.dtype == object:
        return _encoded(file)
    try:
        from PIL import Image, ImageOps
    except ImportError:
        return fit_frame(_read_with_opencv(file), tensor, scale, str(file))
    height, width, channels = _size(tensor, str(file))
    try:
        with Image.open(file) as opened:
            picture = _converted(ImageOps.exif_transpose(opened), _MODES.get(channels or 3, "RGB"), opened.format)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SourceError(f"{file} cannot be read as an image: {str(error).rstrip('.')}.") from error
    if height and width and picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)  # Pillow's is antialiased
    pixels = np.asarray(picture)
    if pixels.ndim == 2 and channels != 1:  # 16 bits
        pixels = np.stack([*[pixels] * 3, *[np.full_like(pixels, 255)] * (channels == 4)], axis=-1)
    return _as_input(pixels, tensor, scale)


def _converted(picture: Any, mode: str, file_format: str | None) -> Any:
    """Convert Pillow's image; one with 16 bits a pixel to mode `F`, from 0 to 255, as Pillow would cut off above."""
    if picture.mode.startswith("I;16") or (picture.mode == "I" and file_format == "PNG"):  # before Pillow 11.3
        from PIL import Image

        return Image.fromarray(np.asarray(picture).astype(np.float32) * np.float32(255 / 65535))
    if picture.mode in ("I", "F"):
        raise ValueError(
            "its pixels have 32 bits, and nothing says which of their values is white. Expected 8 or 16 bits a "
            "channel. Convert it, or send its values in an .npy file"
        )
    return picture.convert(mode)


def _encoded(file: Path) -> np.ndarray:
    try:
        return np.array(file.read_bytes(), dtype=object)
    except OSError as error:
        raise SourceError(f"{file} cannot be read: {error.strerror}.") from error


def frames(source: int | Path, tensor: TensorInfo, scale: float | None = None) -> Iterator[np.ndarray]:
    """Return the frames of a camera, by its number, or of a video file; a camera's go on for ever.

    Raises:
        SourceError: OpenCV is not installed, or cannot open the source; or the camera gives no more.
    """
    cv2 = _opencv("Cameras and videos are read by OpenCV, which is not installed")
    what = f"camera {source}" if isinstance(source, int) else str(source)
    if any("\ud800" <= character <= "\udfff" for character in what):  # OpenCV would end the process
        raise SourceError(f"{what!r} cannot be opened: its name is no text in UTF-8. Rename it.")
    capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
    try:
        if not capture.isOpened():
            hint = "Look at /dev/video* for what there is." if isinstance(source, int) else "Is it a video file?"
            raise SourceError(f"{what} cannot be opened. {hint}")
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest frame, not one that waited
        for number in itertools.count():
            read, frame = capture.read()
            if not read:
                if number == 0:
                    raise SourceError(f"{what} gives no frames.")
                if isinstance(source, int):
                    raise SourceError(f"{what} gives no more frames, after {number:,}. Is it still connected?")
                _tell_missing(what, number, capture.get(cv2.CAP_PROP_FRAME_COUNT))
                return
            yield fit_frame(frame, tensor, scale, what)
    finally:
        capture.release()


def _tell_missing(what: str, frames_read: int, frames: float) -> None:
    """Say that a video ended early; how many frames it has is not exact in all formats."""
    if frames_read < 0.9 * frames:
        logger.warning("%s ended after %d of %d frames: it is damaged, or cut off.", what, frames_read, frames)


def fit_frame(frame: np.ndarray, tensor: TensorInfo, scale: float | None, where: str) -> np.ndarray:
    """Make OpenCV's image (blue, green, red) fit an input; as `read_image`."""
    cv2 = _opencv("Images are read by Pillow or OpenCV, and neither is installed")
    height, width, channels = _size(tensor, where)
    if height and width and frame.shape[:2] != (height, width):
        shrinks = height * width < frame.shape[0] * frame.shape[1]
        frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    conversion = {1: cv2.COLOR_BGR2GRAY, 4: cv2.COLOR_BGR2RGBA}.get(channels, cv2.COLOR_BGR2RGB)
    return _as_input(cv2.cvtColor(frame, conversion), tensor, scale)


def _read_with_opencv(file: Path) -> np.ndarray:
    cv2 = _opencv("Images are read by Pillow or OpenCV, and neither is installed")
    try:
        frame = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error) as error:
        raise SourceError(f"{file} cannot be read as an image: {error}.") from error
    if frame is None:
        raise SourceError(f"{file} cannot be read as an image: OpenCV does not know its format.")
    return frame


def _opencv(missing: str) -> Any:
    try:
        import cv2
    except ImportError as error:
        raise SourceError(f"{missing}. Install it: {install_command('vision')}") from error
    return cv2


def takes_images(tensor: TensorInfo) -> bool:
    """Return whether an input has the dimensions of images: with channels, or without for grey ones, or any at all."""
    shape = tensor.shape
    return shape is None or len(shape) == 3 or (len(shape) == 4 and shape[3] in (None, *_MODES))


def scaled_array(array: np.ndarray, tensor: TensorInfo, scale: float) -> np.ndarray:
    """Multiply an array's values by a number, in the input's type, if the input is one for images."""
    if not takes_images(tensor) or array.dtype.kind not in "biuf":
        return array
    values = array * scale
    return (np.rint(values) if tensor.dtype.kind in "iu" else values).astype(tensor.dtype)


def holds_raw_pixels(array: np.ndarray, tensor: TensorInfo) -> bool:
    """Return whether integers of 0 to 255 go to an input of floating point, `[batch, height, width, 1 | 3 | 4]`."""
    if tensor.shape is None or len(tensor.shape) != 4 or tensor.shape[3] not in _MODES or tensor.dtype.kind in "iubO":
        return False
    if array.size == 0 or array.dtype.kind not in "iuf" or not 1 < array.max() <= 255 or array.min() < 0:
        return False
    return array.dtype.kind in "iu" or bool(np.all(array == np.rint(array)))


def _size(tensor: TensorInfo, where: str) -> tuple[int | None, int | None, int | None]:
    """Height, width and channels that an input asks for; one channel where it has no dimension for them."""
    shape = tensor.shape
    if shape is None:
        return None, None, None
    if takes_images(tensor):
        return (*shape[1:3], 1) if len(shape) == 3 else shape[1:]
    raise SourceError(
        f"{where}: the model does not take images. Expected an input [batch, height, width, channels], got {tensor}. "
        "A `client` hook can make of an image what the model takes."
    )


def _as_input(pixels: np.ndarray, tensor: TensorInfo, scale: float | None) -> np.ndarray:
    if pixels.ndim == 2 and tensor.shape is not None and len(tensor.shape) == 4:
        pixels = pixels[:, :, None]
    is_integer = tensor.dtype.kind in "iu"
    factor = scale if scale is not None else None if is_integer else 1 / 255
    if factor is None:
        return (np.rint(pixels) if pixels.dtype.kind == "f" else pixels).astype(tensor.dtype)
    values = pixels.astype(np.float32) * np.float32(factor)
    return (np.rint(values) if is_integer else values).astype(tensor.dtype)
