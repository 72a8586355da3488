"""Pictures of any bit depth as bytes: Pillow itself cuts off what is above 255."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's modes by their number of channels."""


def read_upright(file: Path, channels: int) -> Image.Image:
    """Read an image file with 8 bits a channel, turned upright as the camera noted.

    Raises:
        ValueError: Its pixels have 32 bits.
        Exception: Whatever Pillow's decoders raise of broken files.
    """
    from PIL import Image, ImageOps

    with Image.open(file) as opened:
        return as_bytes(ImageOps.exif_transpose(opened), MODES[channels], opened.format)


def reason_unreadable(error: Exception, file: Path) -> str:
    """Return what an error says of a file, in one line and without the file's name."""
    return " ".join(str(error).split()).replace(str(file), "it").rstrip(".") or type(error).__name__


def as_bytes(picture: Image.Image, mode: str, file_format: str | None) -> Image.Image:
    """Convert a picture to a mode of 8 bits a channel; the white of 16 bits stays white.

    Args:
        picture: As Pillow opened it.
        mode: `L`, `RGB` or `RGBA`.
        file_format: Format of its file, as Pillow names it.

    Raises:
        ValueError: Its pixels have 32 bits.
    """
    if has_16_bits(picture, file_format):
        from PIL import Image

        pixels = np.rint(np.asarray(picture).astype(np.float32) * np.float32(255 / 65535))
        picture = Image.fromarray(pixels.astype(np.uint8))
    elif picture.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits, and nothing says which of their values is white")
    return picture.convert(mode)


def has_16_bits(picture: Image.Image, file_format: str | None) -> bool:
    """Return whether a picture is grey with 16 bits a pixel."""
    return picture.mode.startswith("I;16") or (picture.mode == "I" and file_format == "PNG")  # before Pillow 11.3
