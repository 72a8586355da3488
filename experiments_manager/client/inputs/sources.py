"""What is to be predicted, from outside of the settings: files, folders, standard input, cameras.

Everything is read as it is asked for, so a source may be larger than the memory, or never end.
"""

from __future__ import annotations

import codecs
import itertools
import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from experiments_manager.client.errors import ClientError
from experiments_manager.client.inputs import images
from experiments_manager.client.inputs.request_sample import (
    Sample,
    SourceError,
    as_request,
    only_input,
    samples_of_arrays,
)
from experiments_manager.client.inputs.table_rows import read_table
from experiments_manager.client.model_info import ModelInfo, listed, named

logger = logging.getLogger(__name__)

STANDARD_INPUT = "-"
_ARRAYS = frozenset([".npy", ".npz"])
_TABLES = frozenset([".csv", ".tsv"])
_NPY_MAGIC = b"\x93NUMPY"
_QUOTED = 60  # characters of a line that cannot be read, in messages
_CAMERA = re.compile(r"camera:(\d+)")
_EXPECTED = (
    "Expected an image, an .npy, .npz or .csv file, a video, a folder of these, `camera:0`, "
    "`kafka:TOPIC`, or `-` for CSV, JSON or .npy on standard input"
)


def open_source(source: str, info: ModelInfo, *, scale: float | None = None) -> Iterator[Sample]:
    """Open a source of samples.

    Args:
        source: A path, `-` or `camera:NUMBER`.
        info: The model that the samples are for.
        scale: What pixel values are multiplied by. By default 1/255 where images go to inputs of floating point; arrays
            and tables are sent as they are.

    Returns:
        The samples, read as they are asked for.

    Raises:
        SourceError: The source is not found or cannot be read, or there is a scale and the model does not take
            images. Also while the samples are read.
    """
    check_source(source)
    if scale is not None and not any(map(images.takes_images, info.inputs.values())):
        raise SourceError(
            f"{scale:g} is given to multiply pixel values by, and the model does not take images. Expected an input "
            f"[batch, height, width, channels], got {listed(info.inputs)}. Omit --scale."
        )
    samples = _open(source, info, scale)
    return samples if scale is not None else _with_pixel_warning(samples, info)


def _open(source: str, info: ModelInfo, scale: float | None) -> Iterator[Sample]:
    if source == STANDARD_INPUT:
        return _scaled(_standard_input(_with_own_buffer(sys.stdin.buffer), info), info, scale)
    if camera := _CAMERA.fullmatch(source):
        return _frames(int(camera[1]), info, scale)
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path, info, scale)
    return _file(path, path.name, info, scale)


def check_source(source: str) -> None:
    """Say what can be said of a source before any server was asked.

    Raises:
        SourceError: The file or folder is not found.
    """
    if not source:
        raise SourceError(f"No source is named. {_EXPECTED}.")
    path = Path(source).expanduser()
    if source != STANDARD_INPUT and not _CAMERA.fullmatch(source) and not path.exists():
        raise SourceError(f"{path} not found. {_EXPECTED}.")


def _file(
    path: Path, label: str, info: ModelInfo, scale: float | None, reported: set[str] | None = None
) -> Iterator[Sample]:
    """Return the samples of a file; `reported` are the columns without an input that were logged."""
    suffix = path.suffix.lower()
    if suffix in images.IMAGES:
        return _image(path, label, info, scale)
    if suffix in images.VIDEOS:
        return _frames(path, info, scale)
    if suffix in _ARRAYS:
        return _scaled(_arrays(path, info), info, scale)
    if suffix in _TABLES:
        return _scaled(_table(path, info, reported), info, scale)
    raise SourceError(f"{path} cannot be read: {_ending(path)}. {_EXPECTED}.")


def _ending(path: Path) -> str:
    return f"unknown ending {path.suffix}" if path.suffix else "its name has no ending"


def _folder(path: Path, info: ModelInfo, scale: float | None) -> Iterator[Sample]:
    """Yield all files of a folder and its subfolders that can be read, in the order of their names.

    Tables in a folder of images are left out: they hold labels.
    """
    pictures = images.IMAGES | images.VIDEOS
    found = sorted(file for file in path.rglob("*") if file.is_file())
    files = [file for file in found if file.suffix.lower() in pictures | _ARRAYS | _TABLES]
    if any(file.suffix.lower() in pictures for file in files):
        files = [file for file in files if file.suffix.lower() not in _TABLES]
    if not files:
        raise SourceError(f"{path} holds nothing that can be read. {_EXPECTED}.")

    def samples() -> Iterator[Sample]:
        reported: set[str] = set()
        for file in files:
            label = str(file.relative_to(path))
            for sample in _file(file, label, info, scale, reported):
                name = label if sample.label == label else f"{label}[{sample.label}]"
                yield Sample(name, sample)

    return samples()


def _image(path: Path, label: str, info: ModelInfo, scale: float | None) -> Iterator[Sample]:
    name, tensor = only_input(info, f"The image {path}")
    yield Sample(label, {name: as_request(name, images.read_image(path, tensor, scale), tensor, str(path))})


def _scaled(samples: Iterator[Sample], info: ModelInfo, scale: float | None) -> Iterator[Sample]:
    """Multiply what goes to inputs for images, where the user says by what."""
    if scale is None:
        return samples
    return (
        Sample(
            sample.label, {name: images.scaled_array(array, info.inputs[name], scale) for name, array in sample.items()}
        )
        for sample in samples
    )


def _with_pixel_warning(samples: Iterator[Sample], info: ModelInfo) -> Iterator[Sample]:
    """Say once where arrays or tables hold pixels as image files do, which are scaled, while these are not."""
    warned = False
    for sample in samples:
        if not warned and any(images.holds_raw_pixels(array, info.inputs[name]) for name, array in sample.items()):
            warned = True
            logger.warning(
                "Sample %s holds whole numbers from 0 to 255, which are sent as they are; image files are scaled to 0 "
                "to 1. Give --scale 0.00392156862745 (1/255) to scale these too, or --scale 1 if the model expects 0 "
                "to 255.",
                sample.label,
            )
        yield sample


def _frames(source: int | Path, info: ModelInfo, scale: float | None) -> Iterator[Sample]:
    name, tensor = only_input(info, "Frames")
    for number, frame in enumerate(images.frames(source, tensor, scale)):
        yield Sample(str(number), {name: as_request(name, frame, tensor, f"frame {number}")})


def _arrays(path: Path, info: ModelInfo) -> Iterator[Sample]:
    try:
        if path.suffix.lower() == ".npz":
            with path.open("rb") as file, np.load(file, allow_pickle=False) as loaded:
                arrays = {name: loaded[name] for name in loaded.files}
            if len(arrays) == 1 and len(info.required) == 1:
                arrays = {next(iter(info.required)): next(iter(arrays.values()))}
        else:
            arrays = {only_input(info, f"The array {path}")[0]: np.load(path, mmap_mode="r", allow_pickle=False)}
    except SourceError:
        raise
    except Exception as error:  # zipfile, zlib and tokenize have errors of their own
        raise SourceError(
            f"{path} cannot be read: {str(error).rstrip('.')}. Expected arrays as numpy.save or numpy.savez wrote."
        ) from error
    yield from samples_of_arrays(arrays, info, str(path))


def _table(path: Path, info: ModelInfo, reported: set[str] | None) -> Iterator[Sample]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            yield from read_table(file, info, str(path), delimiter=delimiter, reported=reported)
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read: {error}. Expected a table in UTF-8.") from error


def _with_own_buffer(stream: IO[bytes]) -> IO[bytes]:
    """Open a stream once more: Python cannot end while a thread waits in the buffer of its own standard input."""
    try:
        return open(stream.fileno(), "rb", closefd=False)
    except OSError:  # not a file of the system
        return stream


def _standard_input(stream: IO[bytes], info: ModelInfo) -> Iterator[Sample]:
    """Read arrays in NumPy's format one after the other, or a JSON value a line, or CSV; each as it is whole."""
    start = stream.read(1)
    if start == codecs.BOM_UTF8[:1]:
        start = (start + stream.read(2)).removeprefix(codecs.BOM_UTF8) or stream.read(1)
    while start.isspace():
        start = stream.read(1)
    if start == _NPY_MAGIC[:1]:
        yield from _npy_stream(_Prefixed(start, stream), info)
        return
    lines = map(_decoded, itertools.count(1), _lines(start, stream))
    if start in (b"{", b"["):
        yield from _json_lines(lines, info)
    else:
        yield from read_table(lines, info, "standard input")


def _decoded(number: int, line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise SourceError(f"standard input, line {number}: {error}. Expected text in UTF-8.") from error


def _lines(start: bytes, stream: IO[bytes]) -> Iterator[bytes]:
    line = start + stream.readline() if start else b""
    while line:
        yield line
        line = stream.readline()


class _Prefixed:
    """A stream of bytes, of which the first were read already."""

    def __init__(self, start: bytes, stream: IO[bytes]) -> None:
        self._start, self._stream = start, stream

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes."""
        if size < 0:
            raise ValueError("Expected a number of bytes to read.")
        start, self._start = self._start[:size], self._start[size:]
        return start + self._stream.read(size - len(start))


def _npy_stream(stream: _Prefixed, info: ModelInfo) -> Iterator[Sample]:
    name, tensor = only_input(info, "Arrays on standard input")
    for number in itertools.count():
        start = stream.read(1)
        if not start:
            return
        try:
            array = np.lib.format.read_array(_Prefixed(start, stream), allow_pickle=False)
        except Exception as error:  # tokenize has errors of its own
            raise SourceError(
                f"standard input, array {number}: {str(error).rstrip('.')}. Expected arrays as numpy.save writes."
            ) from error
        yield Sample(str(number), {name: as_request(name, array, tensor, f"standard input, array {number}")})


def _json_lines(lines: Iterable[str], info: ModelInfo) -> Iterator[Sample]:
    for number, line in enumerate(line.rstrip() for line in lines if line.strip()):
        place = f"standard input, line {number + 1}"
        try:
            inputs = named(json.loads(line), info)
        except json.JSONDecodeError as error:
            begin = line if len(line) <= _QUOTED else f"{line[: _QUOTED - 1]}…"
            raise SourceError(
                f"{place}, column {error.colno}: {error.msg}, in {begin!r}. Expected a JSON value on each line."
            ) from error
        except (RecursionError, ValueError) as error:  # too deep; or a number with thousands of digits
            raise SourceError(
                f"{place}: {str(error).partition(';')[0]}. Expected an array of numbers, or one for each input."
            ) from error
        except ClientError as error:
            raise SourceError(f"{place}: {error}") from error
        yield Sample(
            str(number),
            {
                name: as_request(name, _json_array(item, name, info, place), info.inputs[name], place)
                for name, item in inputs.items()
            },
        )


def _json_array(value: Any, name: str, info: ModelInfo, place: str) -> np.ndarray:
    tensor = info.inputs[name]
    try:
        array = np.array(value, object if tensor.dtype == object else None)
        if tensor.dtype != object and array.dtype.kind not in "biuf":
            raise ValueError("it is not numeric")
    except ValueError as error:
        raise SourceError(f"{place}: {name} is not an array of numbers: {error}. Expected {tensor}.") from error
    return array
