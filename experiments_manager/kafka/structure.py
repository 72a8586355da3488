"""The structure of samples: their nest of arrays, and the record that describes it beside a topic.

A structure is a nest of tuples, lists, dictionaries and `None`, with a `Leaf` wherever an array is. As JSON it says
everything that a program needs to read or write the records of a topic; docs/kafka.md describes it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from experiments_manager.kafka.errors import RecordError
from experiments_manager.protocol.dtypes import DataType, TensorError, dtype_of, kind_of_dtype

FORMAT_VERSION = 1
STRING = "string"
_PARTS = ("x", "y", "sample_weight")


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One array of a sample.

    Attributes:
        name: Its place in the nest, such as `x/image`; unique, for messages.
        dtype: Name of the NumPy (or `ml_dtypes`) dtype, or `string`.
        shape: Its shape in one sample; `None` where a dimension differs from sample to sample.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    @property
    def is_string(self) -> bool:
        """Whether its values are byte strings."""
        return self.dtype == STRING

    @property
    def open_dims(self) -> int:
        """How many of its dimensions differ from sample to sample."""
        return self.shape.count(None)

    @functools.cached_property
    def size(self) -> int:
        """Values in a sample, those of the open dimensions not counted."""
        return int(np.prod([size for size in self.shape if size is not None], dtype=np.int64))

    @functools.cached_property
    def numpy_dtype(self) -> np.dtype:
        """The dtype of its arrays; `object` for strings."""
        return np.dtype(object) if self.is_string else dtype_of(_kind(self.dtype))

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} ({sizes}) {self.dtype}"


@dataclasses.dataclass(frozen=True)
class ArraySpec:
    """What is known of the arrays at a place of a nest before there is one.

    Attributes:
        shape: Sizes, that of the batch first; `None` where one differs.
        dtype: Name of the dtype, such as `float32` or `string`.
    """

    shape: tuple[int | None, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Structure:
    """What every sample of a topic looks like.

    Attributes:
        nest: Tuples, lists and dictionaries around numbers of leaves; `None` where nothing is.
        leaves: The arrays, in the order in which a record holds them.
        record: The structure record: as it was read, or as this release writes it.
    """

    nest: Any
    leaves: tuple[Leaf, ...]
    record: bytes = dataclasses.field(default=b"", compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.record:
            object.__setattr__(self, "record", self._as_json())

    @classmethod
    def of(cls, batch: Any, open_dims: bool = False) -> Structure:
        """Return the structure of the samples of a batch.

        Args:
            batch: A nest of arrays (or what NumPy makes one of), the batch first: `x`, `(x, y)` or `(x, y, weights)`.
            open_dims: Whether every dimension after the batch may differ from sample to sample.

        Raises:
            RecordError: A leaf is no array of numbers or strings.
        """
        leaves: list[Leaf] = []

        def describe(path: str, value: Any) -> int:
            array = np.asarray(value)
            if array.ndim == 0:
                raise RecordError(f"{path} is a single value. Expected an array whose first dimension is the batch.")
            try:
                kind = kind_of_dtype(array.dtype)
            except TensorError as error:
                raise RecordError(f"{path} cannot be sent. {error}") from error
            dtype = STRING if kind.numpy_name == "object" else kind.numpy_name
            shape = (None,) * (array.ndim - 1) if open_dims else array.shape[1:]
            leaves.append(Leaf(path, dtype, shape))
            return len(leaves) - 1

        nest = _map(batch, describe, "")
        if not leaves:
            raise RecordError("The samples are empty. Expected at least one array, got none.")
        return cls(nest, tuple(leaves))

    @classmethod
    def of_spec(cls, spec: Any) -> Structure:
        """Return the structure of the samples of batches that are known by their specification alone.

        Args:
            spec: A nest like that of the batches, with an `ArraySpec` at each leaf, or anything else that has `shape`
                (the batch first, `None` where a size differs) and `dtype` (a name, or what has a `name`): the
                `element_spec` of a batched `tf.data.Dataset` of dense tensors can be handed over as it is.

        Raises:
            RecordError: A leaf has no rank, no batch dimension or a dtype that cannot be sent.
        """
        leaves: list[Leaf] = []

        def describe(path: str, leaf: Any) -> int:
            try:
                sizes = tuple(leaf.shape)
                dtype = str(getattr(leaf.dtype, "name", leaf.dtype))
            except (AttributeError, TypeError, ValueError) as error:
                raise RecordError(f"{path} is {leaf!r}. Expected an array of known rank and dtype.") from error
            if not sizes:
                raise RecordError(f"{path} is a single value. Expected an array whose first dimension is the batch.")
            try:
                name = STRING if dtype in ("object", "str", "bytes") else dtype
                kind = _kind("object" if name == STRING else name)
            except (TensorError, TypeError, AttributeError) as error:
                raise RecordError(f"{path} is of dtype {dtype}. Expected numbers or strings.") from error
            shape = tuple(None if size is None else int(size) for size in sizes[1:])
            leaves.append(Leaf(path, STRING if name == STRING else kind.numpy_name, shape))
            return len(leaves) - 1

        nest = _map(spec, describe, "")
        if not leaves:
            raise RecordError("The samples are empty. Expected at least one array, got none.")
        return cls(nest, tuple(leaves))

    @classmethod
    def from_record(cls, text: bytes) -> Structure:
        """Read a structure record.

        Raises:
            RecordError: It is malformed, or of a newer format.
        """
        try:
            record = json.loads(text)
            version = record["format"]
            if version != FORMAT_VERSION:
                raise RecordError(
                    f"The topic's records are of format {version}. Expected {FORMAT_VERSION}: "
                    "install the release of experiments_manager that wrote them, or a newer one."
                )
            leaves = tuple(Leaf(**leaf | {"shape": tuple(leaf["shape"])}) for leaf in record["leaves"])
            nest = _from_plain(record["nest"])
            if sorted(_numbers(nest)) != list(range(len(leaves))):
                raise ValueError("its nest does not hold each leaf once")
            for leaf in leaves:
                _check(leaf)
        except RecordError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RecordError(f"The structure record is malformed: {error!r}. Produce the topic again.") from error
        return cls(nest, leaves, bytes(text))

    def _as_json(self) -> bytes:
        leaves = [{"name": leaf.name, "dtype": leaf.dtype, "shape": leaf.shape} for leaf in self.leaves]
        record = {"format": FORMAT_VERSION, "nest": _to_plain(self.nest), "leaves": leaves}
        return json.dumps(record, separators=(",", ":")).encode()

    @functools.cached_property
    def id(self) -> int:
        """The number by which records name their structure: CRC-32 of the bytes of the structure record."""
        return zlib.crc32(self.record)

    def flatten(self, batch: Any) -> list[Any]:
        """Return the values at the leaves of a batch, in the order of `leaves`.

        Raises:
            RecordError: The batch is nested in another way.
        """
        values: list[Any] = [None] * len(self.leaves)
        if not _collect(self.nest, batch, values):
            raise RecordError(f"The samples are nested differently. Expected {self}.")
        return values

    def pack(self, leaves: Sequence[Any]) -> Any:
        """Return the nest with a value at each leaf."""
        return _map(self.nest, lambda path, number: leaves[number], "")

    def __str__(self) -> str:
        return ", ".join(map(str, self.leaves))


def _kind(name: str) -> DataType:
    try:
        return kind_of_dtype(np.dtype(name))
    except TypeError:
        import ml_dtypes

        return kind_of_dtype(np.dtype(getattr(ml_dtypes, name)))


def _check(leaf: Leaf) -> None:
    if not all(size is None or (type(size) is int and size >= 0) for size in leaf.shape):
        raise ValueError(f"{leaf.name} has the shape {leaf.shape}")
    if not leaf.is_string and leaf.numpy_dtype.name != leaf.dtype:
        raise ValueError(f"{leaf.name} has the dtype {leaf.dtype}")


def _map(nest: Any, function: Callable[[str, Any], Any], path: str) -> Any:
    """Return the nest with each leaf replaced by what the function makes of its path and value."""
    if nest is None:
        return None
    if isinstance(nest, dict):
        return {key: _map(value, function, _join(path or "x", str(key))) for key, value in nest.items()}
    if isinstance(nest, tuple):
        names = _PARTS if not path and len(nest) <= len(_PARTS) else [str(number) for number in range(len(nest))]
        return tuple(_map(value, function, _join(path, name)) for name, value in zip(names, nest, strict=False))
    if isinstance(nest, list):
        return [_map(value, function, _join(path or "x", str(number))) for number, value in enumerate(nest)]
    return function(path or "x", nest)


def _collect(nest: Any, value: Any, into: list[Any]) -> bool:
    """Put the values at the leaves of a nest into a list; return whether the value is nested like that."""
    if nest is None:
        return value is None
    if isinstance(nest, int):
        into[nest] = value
        return True
    if isinstance(nest, dict):
        same = isinstance(value, dict) and nest.keys() == value.keys()
        return same and all(_collect(part, value[key], into) for key, part in nest.items())
    same = isinstance(value, type(nest)) and len(nest) == len(value)
    return same and all(_collect(part, one, into) for part, one in zip(nest, value, strict=True))


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _to_plain(nest: Any) -> Any:
    if isinstance(nest, dict):
        return {"dict": [[key, _to_plain(value)] for key, value in nest.items()]}
    if isinstance(nest, tuple | list):
        return {"tuple" if isinstance(nest, tuple) else "list": [_to_plain(value) for value in nest]}
    return nest


def _from_plain(plain: Any) -> Any:
    if not isinstance(plain, dict):
        return plain
    [(kind, parts)] = plain.items()
    if kind == "dict":
        return {key: _from_plain(value) for key, value in parts}
    return {"tuple": tuple, "list": list}[kind](_from_plain(part) for part in parts)


def _numbers(nest: Any) -> Iterator[int]:
    parts = nest.values() if isinstance(nest, dict) else nest if isinstance(nest, tuple | list) else ()
    for part in parts:
        yield from _numbers(part)
    if isinstance(nest, int):
        yield nest
