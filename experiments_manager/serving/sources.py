"""What is to be predicted, from outside of the settings: files, folders, standard input, cameras.

Everything is read as it is asked for, so a source may be larger than the memory, or never end.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from experiments_manager.serving import images
from experiments_manager.serving.model_info import ModelInfo, TensorInfo
from experiments_manager.serving.samples import Sample, SourceError, as_request, only_input, samples_of_arrays

STANDARD_INPUT = "-"
_ARRAYS = frozenset([".npy", ".npz"])
_TABLES = frozenset([".csv", ".tsv"])
_NPY_MAGIC = b"\x93NUMPY"
_CAMERA = re.compile(r"camera:(\d+)")
_EXPECTED = (
    "Expected an image, an .npy, .npz or .csv file, a video, a folder of these, `camera:0`, "
    "or `-` for CSV, JSON or .npy on standard input"
)


def open_source(source: str, info: ModelInfo, *, scale: float | None = None) -> Iterator[Sample]:
    """Opens a source of samples.

    Args:
        source: A path, `-` or `camera:NUMBER`.
        info: The model that the samples are for.
        scale: What pixel values of images are multiplied by.

    Returns:
        The samples, read as they are asked for.

    Raises:
        SourceError: There is no such source, or it cannot be read. Also while the samples are read.
    """
    check_source(source)
    if source == STANDARD_INPUT:
        return _standard_input(_with_own_buffer(sys.stdin.buffer), info)
    if camera := _CAMERA.fullmatch(source):
        return _frames(int(camera[1]), info, scale)
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path, info, scale)
    return _file(path, path.name, info, scale)


def check_source(source: str) -> None:
    """Says what can be said of a source before any server was asked.

    Raises:
        SourceError: There is no such file or folder.
    """
    path = Path(source).expanduser()
    if source != STANDARD_INPUT and not _CAMERA.fullmatch(source) and not path.exists():
        raise SourceError(f"There is no {path}. {_EXPECTED}.")


def _file(path: Path, label: str, info: ModelInfo, scale: float | None) -> Iterator[Sample]:
    suffix = path.suffix.lower()
    if suffix in images.IMAGES:
        return _image(path, label, info, scale)
    if suffix in images.VIDEOS:
        return _frames(path, info, scale)
    if suffix in _ARRAYS:
        return _arrays(path, info)
    if suffix in _TABLES:
        return _csv_file(path, info)
    raise SourceError(f"{path} cannot be read: nobody knows its ending. {_EXPECTED}.")


def _folder(path: Path, info: ModelInfo, scale: float | None) -> Iterator[Sample]:
    """All files of a folder and its subfolders that can be read, in the order of their names.

    Tables beside pictures are left out: they hold labels.
    """
    pictures = images.IMAGES | images.VIDEOS
    found = sorted(file for file in path.rglob("*") if file.is_file())
    files = [file for file in found if file.suffix.lower() in pictures | _ARRAYS | _TABLES]
    if any(file.suffix.lower() in pictures for file in files):
        files = [file for file in files if file.suffix.lower() not in _TABLES]
    if not files:
        raise SourceError(f"{path} holds nothing that can be read. {_EXPECTED}.")

    def samples() -> Iterator[Sample]:
        for file in files:
            label = str(file.relative_to(path))
            for sample in _file(file, label, info, scale):
                name = label if sample.label == label else f"{label}[{sample.label}]"
                yield Sample(name, sample)

    return samples()


def _image(path: Path, label: str, info: ModelInfo, scale: float | None) -> Iterator[Sample]:
    name, tensor = only_input(info, f"The image {path}")
    yield Sample(label, {name: as_request(name, images.read_image(path, tensor, scale), tensor, str(path))})


def _frames(source: int | Path, info: ModelInfo, scale: float | None) -> Iterator[Sample]:
    name, tensor = only_input(info, "Frames")
    for number, frame in enumerate(images.frames(source, tensor, scale)):
        yield Sample(str(number), {name: as_request(name, frame, tensor, f"frame {number}")})


def _arrays(path: Path, info: ModelInfo) -> Iterator[Sample]:
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if path.suffix.lower() == ".npz":
            with loaded:
                arrays = {name: loaded[name] for name in loaded.files}
            if len(arrays) == 1 and len(info.required) == 1:
                arrays = {next(iter(info.required)): next(iter(arrays.values()))}
        else:
            arrays = {only_input(info, f"The array {path}")[0]: loaded}
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(
            f"{path} cannot be read: {str(error).rstrip('.')}. Expected arrays as numpy.save or numpy.savez wrote."
        ) from error
    yield from samples_of_arrays(arrays, info, str(path))


def _csv_file(path: Path, info: ModelInfo) -> Iterator[Sample]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from _csv(file, info, str(path), "\t" if path.suffix.lower() == ".tsv" else ",")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read: {error}. Expected a table in UTF-8.") from error


def _csv(lines: Iterable[str], info: ModelInfo, where: str, delimiter: str = ",") -> Iterator[Sample]:
    """Rows of a table. A header names the inputs; without one, the cells are the numbers of the one input, in order."""
    rows = csv.reader(lines, delimiter=delimiter)
    first = next((row for row in rows if row), None)
    if first is None:
        raise SourceError(f"{where} is empty. Expected a line for each sample.")
    has_header = not all(_is_number(cell) for cell in first) and _names_inputs(first, info)
    columns = _columns(first, info, where) if has_header else None
    if columns is None:
        name, _ = only_input(info, f"{where}: a table without a header that names the inputs")
        has_header = not all(_is_number(cell) for cell in first) and info.inputs[name].dtype != object
        columns = {name: list(range(len(first)))}
    start = [] if has_header else [first]
    number = -1
    for number, row in enumerate(row for row in itertools.chain(start, rows) if row):
        place = f"{where}, row {number + 1}"
        inputs = {}
        for name, indices in columns.items():
            inputs[name] = _cells(row, indices, name, info.inputs[name], place)
        yield Sample(str(number), inputs)
    if number < 0:
        raise SourceError(
            f"{where} has a header ({', '.join(first)[:100]}) and nothing else. Expected a line for each sample."
        )


def _names_inputs(header: list[str], info: ModelInfo) -> bool:
    return all(any(_belongs(cell, name) for cell in header) for name in info.required)


def _belongs(cell: str, name: str) -> bool:
    return re.fullmatch(rf"{re.escape(name)}(_\d+)?", cell.strip()) is not None


def _columns(header: list[str], info: ModelInfo, where: str) -> dict[str, list[int]]:
    """The columns of each input: the one of its name, or `name_0`, `name_1`, … in the order of their numbers."""
    columns = {}
    for name in info.inputs:
        numbered = {
            int(cell.strip()[len(name) + 1 :] or -1): index for index, cell in enumerate(header) if _belongs(cell, name)
        }
        if numbered:
            columns[name] = [numbered[number] for number in sorted(numbered)]
    return columns


def _cells(row: list[str], indices: list[int], name: str, tensor: TensorInfo, place: str) -> np.ndarray:
    if max(indices) >= len(row):
        raise SourceError(f"{place}: there are {len(row)} cells. Expected {max(indices) + 1}, as in the rows before.")
    cells = [row[index] for index in indices]
    try:
        values = np.array([_value(cell, tensor.dtype) for cell in cells], tensor.dtype)
    except (ValueError, OverflowError) as error:
        raise SourceError(f"{place}: {error}. Expected values for the input {name} ({tensor}).") from error
    return as_request(name, _shaped(values, tensor), tensor, place)


def _value(cell: str, dtype: np.dtype) -> Any:
    if dtype.kind == "O":
        return cell
    if dtype.kind not in "iu":
        return float(cell)
    try:
        return int(cell)
    except ValueError:
        value = float(cell)
    if not value.is_integer():
        raise ValueError(f"{cell} is no whole number")
    return int(value)


def _shaped(values: np.ndarray, tensor: TensorInfo) -> np.ndarray:
    """Gives a row of cells the shape of one sample, where their number fits."""
    if tensor.shape is None or len(tensor.shape) == 2:
        return values
    sample = tensor.shape[1:]
    if None not in sample and int(np.prod(sample)) == values.size:
        return values.reshape(sample)
    return values


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _with_own_buffer(stream: IO[bytes]) -> IO[bytes]:
    """Opens a stream once more: Python cannot end while a thread waits in the buffer of its own standard input."""
    try:
        return open(stream.fileno(), "rb", closefd=False)
    except OSError:  # it is none of the system's
        return stream


def _standard_input(stream: IO[bytes], info: ModelInfo) -> Iterator[Sample]:
    """Arrays in NumPy's format one after the other, or a JSON value a line, or CSV. Each is sent when it is whole."""
    start = stream.read(1)
    while start.isspace():
        start = stream.read(1)
    if start == _NPY_MAGIC[:1]:
        yield from _npy_stream(_Prefixed(start, stream), info)
        return
    lines = (line.decode("utf-8", "replace") for line in _lines(start, stream))
    if start in (b"{", b"["):
        yield from _json_lines(lines, info)
    else:
        yield from _csv(lines, info, "standard input")


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
        """Reads up to `size` bytes."""
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
        except (ValueError, EOFError) as error:
            raise SourceError(
                f"standard input, array {number}: {error}. Expected arrays as numpy.save writes."
            ) from error
        yield Sample(str(number), {name: as_request(name, array, tensor, f"standard input, array {number}")})


def _json_lines(lines: Iterable[str], info: ModelInfo) -> Iterator[Sample]:
    for number, line in enumerate(line for line in lines if line.strip()):
        place = f"standard input, line {number + 1}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise SourceError(f"{place}: {error}. Expected a JSON value on each line.") from error
        named = value if isinstance(value, dict) else {only_input(info, "A JSON value without names")[0]: value}
        if not set(info.required) <= set(named) <= set(info.inputs):
            raise SourceError(f"{place}: got {', '.join(named)}. Expected {', '.join(info.inputs)}.")
        yield Sample(
            str(number),
            {
                name: as_request(name, _json_array(item, name, info, place), info.inputs[name], place)
                for name, item in named.items()
            },
        )


def _json_array(value: Any, name: str, info: ModelInfo, place: str) -> np.ndarray:
    tensor = info.inputs[name]
    try:
        array = np.array(value, object if tensor.dtype == object else None)
        if tensor.dtype != object and array.dtype.kind not in "biuf":
            raise ValueError("it is not numeric")
    except ValueError as error:
        raise SourceError(f"{place}: {name} is no array of numbers: {error}. Expected {tensor}.") from error
    return array
