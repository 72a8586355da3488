"""Tables of numbers and categories with missing values, and the images that their rows name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.common.tables.headed import read_rows, rows_of_split
from experiments_manager.common.tables.problems import Problems
from experiments_manager.data.bit_depths import read_upright

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
"""What stands for a missing value in a table, in any case."""
_LARGEST = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class Records:
    """The rows of one split of a table.

    Attributes:
        path: The table.
        lines: Line of each row in the file, the header being line 1.
        numbers: `float32` of shape [rows] by column; NaN where there is no value.
        categories: `int32` of shape [rows] by column, each an index of the words that were given; -1 where there is no
            value.
        files: Text of the file column, where one was asked for.
    """

    path: Path
    lines: list[int]
    numbers: dict[str, np.ndarray]
    categories: dict[str, np.ndarray]
    files: list[str]

    def __len__(self) -> int:
        return len(self.lines)

    def matrix(self, columns: Sequence[str]) -> np.ndarray:
        """Return columns of numbers side by side, `float32` of shape [rows, columns]."""
        return np.stack([self.numbers[column] for column in columns], axis=1)


def read_records(
    path: Path | str,
    split: str | None = None,
    *,
    numbers: Sequence[str] = (),
    categories: Mapping[str, Sequence[str]] | None = None,
    required: Sequence[str] = (),
    file_column: str | None = None,
    split_column: str = "split",
) -> Records:
    """Read columns of a CSV file, in which values may be missing.

    Args:
        path: A CSV file in UTF-8 with a header. Nothing, `NA`, `NaN`, `null`, `none` and `?` are missing values, except
            where `categories` gives them as words.
        split: Take only the rows with this word in `split_column`; `None` takes all.
        numbers: Columns of numbers.
        categories: Columns of words, each with the words that it may hold.
        required: Those of these columns that need a value in each row, such as targets.
        file_column: Column that names a file for each row.
        split_column: Column with the split; need not be there when `split` is `None`.

    Returns:
        The rows, in the order of the file.

    Raises:
        DataFileError: The file, columns, or rows of the split are missing, or values are wrong; all of these at once.
    """
    path, categories = Path(path), dict(categories or {})
    others = [name for name in (file_column, split_column if split is not None else None) if name is not None]
    problems = Problems()
    rows = read_rows(path, [*dict.fromkeys([*numbers, *categories, *others, *required])], problems)
    rows = rows_of_split(path, rows, split_column, split, problems)
    needed = {*required, *([file_column] if file_column else [])}
    columns: dict[str, list[Any]] = {}
    for name in (*numbers, *categories, *([file_column] if file_column else [])):
        read, words = _reader(name, numbers, categories), categories.get(name, ())
        places = [(row[name], f"{path}, line {line}, column {name!r}") for line, row in rows]
        columns[name] = [_value(text, place, name in needed, words, read, problems) for text, place in places]
    problems.refuse()
    return Records(
        path,
        [line for line, _ in rows],
        {name: np.array(columns[name], np.float32) for name in numbers},
        {name: np.array(columns[name], np.int32) for name in categories},
        columns[file_column] if file_column else [],
    )


def read_record_images(
    records: Records, folder: Path | str, *, size: tuple[int, int] | None = None, channels: int = 3
) -> np.ndarray:
    """Read the image of each row, on all processors; photographs are turned upright as the camera noted.

    Args:
        records: Rows with files.
        folder: What the files' names are relative to.
        size: Height and width to resize to; `None` demands that all images have one size.
        channels: 1 for grey, 3 for RGB, 4 for RGBA; images are converted.

    Returns:
        `float32` of shape [rows, height, width, channels] in 0..1.

    Raises:
        DataFileError: Images are missing, damaged or of other sizes; all of these at once.
    """
    folder = Path(folder)
    with ThreadPoolExecutor() as threads:
        images = list(threads.map(lambda file: _read_image(folder / file, size, channels), records.files))
    named = list(zip(records.lines, records.files, images, strict=True))
    problems = Problems()
    for line, _, image in named:
        if isinstance(image, str):
            problems.add(f"{records.path}, line {line}", image)
    arrays = [(line, file, image) for line, file, image in named if not isinstance(image, str)]
    for line, file, image in arrays:
        if image.shape != arrays[0][2].shape:
            text = f"{file} is {image.shape[0]}x{image.shape[1]} (height x width). Expected "
            text += f"{arrays[0][2].shape[0]}x{arrays[0][2].shape[1]} as {arrays[0][1]}. Give size= to resize all."
            problems.add(f"{records.path}, line {line}", text)
    problems.refuse()
    return np.stack(images).astype(np.float32) / 255


def _reader(name: str, numbers: Sequence[str], categories: Mapping[str, Sequence[str]]) -> Callable[[str | None], Any]:
    """Return what turns the text of a cell, `None` where it is missing, into a value."""
    if name in numbers:
        return _number
    if name not in categories:
        return lambda text: text or ""
    words = list(categories[name])

    def index(text: str | None) -> int:
        if text is None:
            return -1
        if text not in words:
            raise ValueError(f"{text!r} is none of {', '.join(words)}. {did_you_mean(text, words)}".rstrip())
        return words.index(text)

    return index


def _number(text: str | None) -> float:
    if text is None:
        return math.nan
    try:
        number = float(text.replace("_", " "))
    except ValueError:
        raise ValueError(f"{text!r} is no number. Expected one, or nothing.") from None
    if not abs(number) <= _LARGEST:
        raise ValueError(f"{text!r} is not finite. Expected a number below 3e38, or nothing.")
    return number


def _value(
    text: str, place: str, needed: bool, words: Sequence[str], read: Callable[[str | None], Any], problems: Problems
) -> Any:
    is_missing = text.lower() in MISSING and text not in words
    if needed and is_missing:
        problems.add(place, "nothing there. Fill it in, or remove the row.")
        return read(None)
    try:
        return read(None if is_missing else text)
    except ValueError as error:
        problems.add(place, str(error))
        return read(None)


def _read_image(file: Path, size: tuple[int, int] | None, channels: int) -> np.ndarray | str:
    """Return the pixels as bytes [height, width, channels], or what is wrong."""
    from PIL import Image

    try:
        image = read_upright(file, channels)
        if size is not None:
            image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(image.height, image.width, channels)
    except FileNotFoundError:
        return f"image {file} not found. Add it, or remove the row."
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"{file} cannot be read as an image: {error}. Expected PNG, JPEG, TIFF or BMP, whole."
