"""Predictions on disk: a table to look at, and all arrays as they are.

`predictions.csv` has one row a sample: its label, the version that answered, and the outputs with at most 100 numbers
a sample, as `name`, or `name_0`, `name_1`, …. Where the class names are known, an output with a number for each class
has the columns `name_<class>`, and `class` is the one with the largest number. It is written as the answers come.

`predictions.npz` has every output whole, the samples along the first dimension, and the arrays `sample` and `version`
(`_sample`, `_version` where outputs are called so). Until the end its values
wait in a temporary file, so a stream may be longer than the memory is large.
"""

from __future__ import annotations

import csv
import dataclasses
import errno
import io
import logging
import math
import os
import sys
import tempfile
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from experiments_manager.client.errors import ClientError, OutputClosedError
from experiments_manager.runs.folder import make_new_folder

logger = logging.getLogger(__name__)

TABLE_LIMIT = 100
"""Numbers of one output of one sample that a table shows at most."""
_COPIED_AT_ONCE = 1 << 20  # bytes


def check_output(output: str) -> None:
    """Refuse an `--output` that no writer can be made for; nothing is written.

    Raises:
        ClientError: It is neither a file that ends in `.csv` or `.npz`, nor `-`.
    """
    if output != "-" and Path(output).suffix.lower() not in (".csv", ".npz"):
        raise ClientError(f"Cannot write predictions to {output}. Expected a file that ends in .csv or .npz, or `-`.")


def make_output_folder(folder: Path) -> Path:
    """Make a folder, under a name with a number behind it where it exists already.

    Raises:
        ClientError: It cannot be made.
    """
    try:
        return make_new_folder(folder)
    except OSError as error:
        raise _cannot_write(error, str(folder)) from error


class PredictionWriter:
    """A writer of predictions, as they come.

    Args:
        table: The CSV file, `-` for standard output, or `None`.
        archive: The NPZ file, or `None`.
        class_names: The classes, where the model tells them apart.

    Raises:
        ClientError: A file cannot be written.
    """

    def __init__(self, table: Path | str | None, archive: Path | None, class_names: Sequence[str] = ()) -> None:
        self._dtypes: dict[str, np.dtype] | None = None
        self.files = [str(file) for file in (table, archive) if file is not None and str(file) != "-"]
        try:
            for file in self.files:
                Path(file).parent.mkdir(parents=True, exist_ok=True)
            self._table = None if table is None else _Table(table, class_names)
            self._archive = None if archive is None else _Archive(archive)
        except OSError as error:
            raise self._cannot_write(error) from error

    @classmethod
    def for_output(cls, output: str | None, default_folder: Path, class_names: Sequence[str] = ()) -> PredictionWriter:
        """Make the writer that the option `--output` means.

        Args:
            output: A file that ends in `.csv` or `.npz`; `-` for a table on standard output; `None` for both in a
                folder.
            default_folder: That folder; it is made, under a name with a number behind it where it exists already.
            class_names: The classes, where the model tells them apart.

        Raises:
            ClientError: It ends otherwise, or the folder cannot be made.
        """
        if output is None:
            folder = make_output_folder(default_folder)
            return cls(folder / "predictions.csv", folder / "predictions.npz", class_names)
        if output == "-":
            return cls("-", None, class_names)
        check_output(output)
        file = Path(output)
        return cls(file, None, class_names) if file.suffix.lower() == ".csv" else cls(None, file)

    def write(self, label: str, version: int, outputs: Mapping[str, np.ndarray]) -> None:
        """Add the answer to one request, which may hold several samples.

        Raises:
            ClientError: It cannot be written, or has other outputs than those before.
            OutputClosedError: The pipe of standard output is closed.
        """
        dtypes = {name: value.dtype for name, value in outputs.items()}
        if self._dtypes is None:
            self._dtypes = dtypes
        elif dtypes != self._dtypes:
            raise ClientError(
                f"Version {version} gives other outputs than the answers before. Expected {_listed(self._dtypes)}, got "
                f"{_listed(dtypes)}. Predict again, or ask for one version by --model-version."
            )
        count = _batch(outputs)
        label = label.encode("utf-8", "backslashreplace").decode()  # a file's name may be no text
        labels = [label] if count == 1 else [f"{label}[{index}]" for index in range(count)]
        batched = {
            name: value if value.ndim and len(value) == count else value[None] for name, value in outputs.items()
        }
        try:
            for part in (self._table, self._archive):
                if part is not None:
                    part.write(labels, version, batched)
        except BrokenPipeError as error:
            raise OutputClosedError("The pipe that takes the predictions is closed.") from error
        except OSError as error:
            raise self._cannot_write(error) from error

    def close(self) -> None:
        """Finish the files.

        Raises:
            ClientError: They cannot be written.
        """
        try:
            try:
                if self._table is not None:
                    self._table.close()
            finally:  # where the table's disk is full, the archive may have another
                if self._archive is not None:
                    self._archive.close()
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> ClientError:
        return _cannot_write(error, " or ".join(self.files) or "standard output")


def _cannot_write(error: OSError, place: str) -> ClientError:
    return ClientError(f"Cannot write predictions: {error.filename or place}: {error.strerror}.")


def _listed(dtypes: Mapping[str, np.dtype]) -> str:
    return ", ".join(f"{name} ({'string' if dtype.kind == 'O' else dtype})" for name, dtype in dtypes.items())


def _batch(outputs: Mapping[str, np.ndarray]) -> int:
    """Return how many samples an answer holds: the first dimension where all outputs share it, else one."""
    counts = {len(value) if value.ndim else None for value in outputs.values()}
    count = counts.pop() if len(counts) == 1 else None
    return 1 if count is None else count


class _Table:
    def __init__(self, file: Path | str, class_names: Sequence[str] = ()) -> None:
        self._class_names = [str(name) for name in class_names]
        self._scores: list[str] = []  # outputs with a number for each class
        self._file: IO[str] = sys.stdout if file == "-" else _open(Path(file))
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._shown: dict[str, int] | None = None
        self._has_warned = False

    def write(self, labels: list[str], version: int, outputs: Mapping[str, np.ndarray]) -> None:
        if self._shown is None:
            self._shown = {}
            for name, value in outputs.items():
                size = value[:1].size
                if 0 < size <= TABLE_LIMIT:
                    self._shown[name] = size
            self._scores = [name for name in self._shown if self._has_score_of_each_class(outputs[name])]
            titles = [title for name in self._shown for title in self._titles(name)]
            self._writer.writerow([*_own_titles(titles), *self._class_titles(titles), *titles])
        for index, label in enumerate(labels):
            classes = [self._likeliest(outputs[name][index]) for name in self._scores]
            cells = [cell for name in self._shown for cell in self._fitted(name, _cells(outputs[name][index]), label)]
            self._writer.writerow([label, version, *classes, *cells])
        self._file.flush()

    def _has_score_of_each_class(self, value: np.ndarray) -> bool:
        return value.dtype.kind == "f" and len(self._class_names) > 1 and value.shape[1:] == (len(self._class_names),)

    def _titles(self, name: str) -> list[str]:
        if name in self._scores:
            return [f"{name}_{each}" for each in self._class_names]
        size = self._shown[name]
        return [name] if size == 1 else [f"{name}_{index}" for index in range(size)]

    def _class_titles(self, taken: Collection[str]) -> list[str]:
        titles = ["class"] if len(self._scores) == 1 else [f"{name}_class" for name in self._scores]
        return [f"_{title}" if title in taken else title for title in titles]

    def _likeliest(self, scores: np.ndarray) -> str:
        fits = scores.shape == (len(self._class_names),) and not np.isnan(scores).any()
        return self._class_names[int(scores.argmax())] if fits else ""

    def _fitted(self, name: str, cells: list[str], label: str) -> list[str]:
        """Keep each output in its columns, also where samples have more or fewer numbers than the first one."""
        columns = self._shown[name]
        if len(cells) > columns and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "Sample %s has %d numbers of the output %s, and the table has columns for %d, as many as the first "
                "sample had: those beyond are left out of the table. An .npz file holds all.",
                label,
                len(cells),
                name,
                columns,
            )
        return [*cells[:columns], *[""] * (columns - len(cells))]

    def close(self) -> None:
        if self._file is not sys.stdout:
            self._file.close()


def _open(file: Path) -> IO[str]:
    return file.open("w", newline="", encoding="utf-8")


def _temporary(folder: Path) -> IO[bytes]:
    """Return a file without a name, which is gone when it is closed or the process ends."""
    return tempfile.TemporaryFile(dir=folder)


def _own_titles(taken: Collection[str]) -> list[str]:
    """Return the titles of what stands beside the outputs, which keep their names also where they are called so."""
    return [f"_{title}" if title in taken else title for title in ("sample", "version")]


def _cells(value: Any) -> list[str]:
    """Write numbers with as many digits as tell them from all others of their type."""
    flat = np.asarray(value, value.dtype if isinstance(value, np.ndarray | np.generic) else object).ravel()
    if flat.dtype == object:
        return [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in flat]
    return [str(item) for item in flat]


@dataclasses.dataclass
class _Column:
    """The numbers of one output so far, in a temporary file; where they are strings, answers hold them."""

    dtype: np.dtype
    values: IO[bytes]


@dataclasses.dataclass(frozen=True, slots=True)
class _Answer:
    """What belongs to one answer; by column in the order of the columns."""

    labels: list[str]
    version: int
    shapes: tuple[tuple[int, ...], ...]
    strings: tuple[list[Any], ...]


class _Archive:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._columns: dict[str, _Column] = {}
        self._answers: list[_Answer] = []
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
        with _temporary(file.parent):
            pass  # whether the folder can be written shows now, not after hours

    def write(self, labels: list[str], version: int, outputs: Mapping[str, np.ndarray]) -> None:
        shapes, strings = [], []
        for name, given in outputs.items():
            value = given if given.dtype.isbuiltin == 1 else given.astype(np.float32)  # bfloat16 has no place in .npy
            if name not in self._columns:
                self._columns[name] = _Column(value.dtype, _temporary(self._file.parent))
            shapes.append(value.shape)
            strings.append(value.ravel().tolist() if value.dtype == object else [])
            if value.dtype != object:
                self._columns[name].values.write(value.tobytes())
        # In one step: Ctrl-C may come at any moment, and what it cut off does not count.
        self._answers.append(_Answer(labels, version, tuple(shapes), tuple(strings)))

    def close(self) -> None:
        unfinished = self._file.with_name(f".{self._file.name}.part")
        labels = [label for answer in self._answers for label in answer.labels]
        versions = [answer.version for answer in self._answers for _ in answer.labels]
        try:
            with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
                own = zip(
                    _own_titles(self._columns), (np.array(labels, str), np.array(versions, np.int64)), strict=True
                )
                for title, array in own:
                    _write_array(archive, title, array)
                for place, (name, column) in enumerate(self._columns.items() if self._answers else ()):
                    shapes = [answer.shapes[place] for answer in self._answers]
                    samples = [shape[1:] for shape in shapes for _ in range(shape[0])]
                    texts = [text for answer in self._answers for text in answer.strings[place]]
                    _write_column(archive, name, column, samples, texts)
            unfinished.replace(self._file)
        except BaseException:
            unfinished.unlink(missing_ok=True)  # a full disk needs the room
            raise
        finally:
            for column in self._columns.values():
                column.values.close()


def _write_column(
    archive: zipfile.ZipFile, name: str, column: _Column, shapes: list[tuple[int, ...]], strings: list[Any]
) -> None:
    """Write `name`; where samples differ in shape, all numbers one after the other, and `name.shapes`."""
    different = set(shapes)
    shape = (len(shapes), *different.pop()) if len(different) == 1 else None
    if shape is None:
        rank = max(map(len, shapes), default=0)
        padded = [[*sizes, *[-1] * (rank - len(sizes))] for sizes in shapes]
        _write_array(archive, f"{name}.shapes", np.array(padded, np.int64))
    if column.dtype == object:
        texts = np.array([item.decode("utf-8", "replace") if isinstance(item, bytes) else item for item in strings])
        _write_array(archive, name, texts if shape is None else texts.reshape(shape))
        return
    size = sum(map(math.prod, shapes))
    left = size * column.dtype.itemsize
    column.values.seek(0)
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        _write_header(member, column.dtype, shape or (size,))
        while block := column.values.read(min(left, _COPIED_AT_ONCE)):
            member.write(block)
            left -= len(block)


def _write_header(member: IO[bytes], dtype: np.dtype, shape: tuple[int, ...]) -> None:
    description = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_2_0(member, {"descr": description, "fortran_order": False, "shape": shape})


def _write_array(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    content = io.BytesIO()
    np.lib.format.write_array(content, array, allow_pickle=False)
    archive.writestr(f"{name}.npy", content.getvalue())
