"""Image files as they are on the disk: their sizes, and whether they can be decoded."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import io
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments_manager.common.console import warn
from experiments_manager.common.errors import UserError
from experiments_manager.common.installation import install_command
from experiments_manager.common.tables.problems import Problems
from experiments_manager.data.bit_depths import as_bytes

Progress = Callable[[str, int, int], None]
"""Is told what is done, how much of it, and how much there is."""
SERVED_FORMATS = {"JPEG": "jpeg", "PNG": "png", "GIF": "gif"}
"""What TensorFlow decodes, by Pillow's name for it; other formats are stored as PNG.

It decodes BMP without the palette, and some kinds not at all.
"""


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """What is known of a file.

    Attributes:
        width: In pixels, as stored.
        height: In pixels, as stored.
        problem: What is wrong with it, or `None`.
        is_turned: Whether viewers turn it (EXIF orientation), so that boxes drawn there may not fit what is stored.
    """

    width: int = 0
    height: int = 0
    problem: str | None = None
    is_turned: bool = False


def inspect_images(
    folder: Path, names: Iterable[str], problems: Problems, progress: Progress | None = None
) -> dict[str, ImageFile]:
    """Decode image files on all processors, to know their sizes and that they are whole; none if there is no folder."""
    if not folder.is_dir():
        problems.add(folder, "not found. Expected the folder of the images.")
        return {}
    names = list(dict.fromkeys(names))
    image = pillow()
    found = {}
    pool = concurrent.futures.ThreadPoolExecutor(min(32, os.cpu_count() or 1))
    try:
        for name, file in zip(names, pool.map(lambda name: _inspected(image, folder / name), names), strict=True):
            found[name] = file
            if progress:
                progress("images read", len(found), len(names))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for thousands of images
    return found


def warn_of_turned(files: Mapping[str, ImageFile]) -> None:
    """Tell of images that viewers turn, whose boxes may have been drawn on the turned picture."""
    if turned := [name for name, file in files.items() if file.is_turned]:
        shown = ", ".join(turned[:5]) + (", …" if len(turned) > 5 else "")
        warn(
            f"Images that are stored turned (EXIF orientation): {len(turned)} ({shown}). Their boxes are taken in "
            "the pixels as stored; if they were drawn on what a viewer shows, turn the files first."
        )


def _inspected(pillow_image: Any, path: Path) -> ImageFile:
    if not path.is_file():
        return ImageFile(problem=f"file {path} not found. Add it, or remove its lines.")
    try:
        with warnings.catch_warnings(), pillow_image.open(path) as image:
            warnings.simplefilter("ignore")
            image.load()
            if image.format not in SERVED_FORMATS:  # whether it can be stored as PNG shows now
                as_bytes(image, "RGB", image.format)
            return ImageFile(image.width, image.height, is_turned=image.getexif().get(0x0112, 1) != 1)
    except Exception as error:  # Pillow's decoders raise whatever broken files make of them
        reason = str(error).replace(str(path), "it").strip() or type(error).__name__
        return ImageFile(problem=f"file {path} cannot be decoded ({reason}). Expected a whole image. Replace it.")


def encoded_image(path: Path) -> tuple[bytes, str]:
    """Return the bytes of an image as TensorFlow can decode them, and their format.

    Formats that it does not know are stored as PNG.
    """
    content = path.read_bytes()
    with pillow().open(io.BytesIO(content)) as image:
        if image.format in SERVED_FORMATS:
            return content, SERVED_FORMATS[image.format]
        buffer = io.BytesIO()
        as_bytes(image, "RGB", image.format).save(buffer, "PNG")
        return buffer.getvalue(), "png"


def pillow() -> Any:
    """Import Pillow's module of images."""
    try:
        from PIL import Image
    except ImportError as error:
        text = f"Images are read by Pillow, which is missing. Run: {install_command('detection')}"
        raise UserError(text) from error
    return Image


def sized(iterable: Iterable[Any], what: str, total: int, progress: Progress | None) -> Iterator[Any]:
    """Give each element, and tell of it when the next one is asked for."""
    for done, element in enumerate(iterable, start=1):
        yield element
        if progress:
            progress(what, done, total)
