"""The structure of samples: their nest of arrays, and the record that describes it beside a topic.

A structure is a nest of tuples, lists, dictionaries and `None`, with a `Leaf` wherever an array is. As JSON it says
everything that a program needs to read or write the records of a topic; docs/kafka.md describes it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from experiments_manager.kafka.errors import RecordError
from experiments_manager.kafka.records.composite import Ragged, Sparse
from experiments_manager.protocol.dtypes import DataType, TensorError, dtype_of, kind_of_dtype

_PARTS = ("x", "y", "sample_weight")


def map_nest(nest: Any, function: Callable[[str, Any], Any], path: str = "") -> Any:
    """Return the nest with each leaf replaced by what the function makes of its path and value."""
    if nest is None:
        return None
    if isinstance(nest, dict):
        return {key: map_nest(value, function, _join(path or "x", str(key))) for key, value in nest.items()}
    if isinstance(nest, tuple):
        names = _PARTS if not path and len(nest) <= len(_PARTS) else [str(number) for number in range(len(nest))]
        return tuple(map_nest(value, function, _join(path, name)) for name, value in zip(names, nest, strict=False))
    if isinstance(nest, list):
        return [map_nest(value, function, _join(path or "x", str(number))) for number, value in enumerate(nest)]
    return function(path or "x", nest)


def collect(nest: Any, value: Any, into: list[Any]) -> bool:
    """Put the values at the numbers of a nest into a list; return whether the value is nested like that."""
    if nest is None:
        return value is None
    if isinstance(nest, int):
        into[nest] = value
        return True
    if isinstance(nest, dict):
        same = isinstance(value, dict) and nest.keys() == value.keys()
        return same and all(collect(part, value[key], into) for key, part in nest.items())
    same = isinstance(value, type(nest)) and len(nest) == len(value)
    return same and all(collect(part, one, into) for part, one in zip(nest, value, strict=True))


def numbers(nest: Any) -> Iterator[int]:
    """Yield the numbers at the leaves of a nest."""
    parts = nest.values() if isinstance(nest, dict) else nest if isinstance(nest, tuple | list) else ()
    for part in parts:
        yield from numbers(part)
    if isinstance(nest, int):
        yield nest


def to_plain(nest: Any) -> Any:
    """Return a nest of numbers as JSON can hold it, in which tuples and lists are different things."""
    if isinstance(nest, dict):
        return {"dict": [[key, to_plain(value)] for key, value in nest.items()]}
    if isinstance(nest, tuple | list):
        return {"tuple" if isinstance(nest, tuple) else "list": [to_plain(value) for value in nest]}
    return nest


def from_plain(plain: Any) -> Any:
    """Return the nest that `to_plain` was given."""
    if not isinstance(plain, dict):
        return plain
    [(kind, parts)] = plain.items()
    if kind == "dict":
        return {key: from_plain(value) for key, value in parts}
    return {"tuple": tuple, "list": list}[kind](from_plain(part) for part in parts)


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


FORMAT_VERSION = 1
STRING = "string"
_KEYS = ("name", "dtype", "shape")
_MOST_BYTES = 2**32


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One array of a sample.

    Attributes:
        name: Its place in the nest, such as `x/image`; unique, for messages.
        dtype: Name of the NumPy (or `ml_dtypes`) dtype, or `string`.
        shape: Its shape in one sample; `None` where a dimension differs from sample to sample.
        ragged: How many dimensions, the first ones, have rows of different lengths: the ragged rank of a batch.
        sparse: Whether a sample holds only those values that are not zero, and their places.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    ragged: int = 0
    sparse: bool = False

    @property
    def is_string(self) -> bool:
        """Whether its values are byte strings."""
        return self.dtype == STRING

    @property
    def open_dims(self) -> int:
        """How many of its dimensions differ from sample to sample."""
        return self.shape.count(None)

    @property
    def varies(self) -> bool:
        """Whether its samples have different numbers of values."""
        return self.sparse or None in self.shape

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
        kind = " sparse" if self.sparse else " ragged" if self.ragged else ""
        return f"{self.name} ({sizes}) {self.dtype}{kind}"


@dataclasses.dataclass(frozen=True)
class ArraySpec:
    """What is known of the arrays at a place of a nest before there is one.

    Attributes:
        shape: Sizes, that of the batch first; `None` where one differs.
        dtype: Name of the dtype, such as `float32` or `string`.
        ragged_rank: How many dimensions after that of the batch have rows of different lengths.
        sparse: Whether they are sparse.
    """

    shape: tuple[int | None, ...]
    dtype: str
    ragged_rank: int = 0
    sparse: bool = False


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
            batch: A nest of arrays (or what NumPy makes one of), `Ragged` and `Sparse`, the batch first: `x`,
                `(x, y)` or `(x, y, weights)`.
            open_dims: Whether every dimension after the batch may differ from sample to sample.

        Raises:
            RecordError: A leaf is no array of numbers or strings.
        """

        def spec(path: str, value: Any) -> ArraySpec:
            if isinstance(value, Ragged):
                sizes: tuple[int | None, ...] = (None,) * len(value.row_lengths) + value.values.shape[1:]
                return ArraySpec((None, *sizes), value.values.dtype.name, len(value.row_lengths))
            is_sparse = isinstance(value, Sparse)
            array = value if is_sparse else np.asarray(value)
            sizes = (None,) * (len(array.shape) - 1) if open_dims else array.shape[1:]
            dtype = (value.values if is_sparse else array).dtype
            return ArraySpec(array.shape[:1] + sizes, STRING if dtype.kind in "SU" else dtype.name, sparse=is_sparse)

        return cls.of_spec(map_nest(batch, spec))

    @classmethod
    def of_spec(cls, spec: Any) -> Structure:
        """Return the structure of the samples of batches that are known by their specification alone.

        Args:
            spec: A nest like that of the batches, with an `ArraySpec` at each leaf, or anything else that has `shape`
                (the batch first, `None` where a size differs) and `dtype` (a name, or what has a `name`): the
                `element_spec` of a batched `tf.data.Dataset` can be handed over as it is.

        Raises:
            RecordError: A leaf has no rank, no batch dimension or a dtype that cannot be sent.
        """
        leaves: list[Leaf] = []

        def describe(path: str, spec: Any) -> int:
            leaves.append(_leaf_of(path, spec))
            return len(leaves) - 1

        nest = map_nest(spec, describe)
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
            nest = from_plain(record["nest"])
            if sorted(numbers(nest)) != list(range(len(leaves))):
                raise ValueError("its nest does not hold each leaf once")
            for leaf in leaves:
                _check(leaf)
        except RecordError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise RecordError(f"The structure record is malformed: {error!r}. Produce the topic again.") from error
        return cls(nest, leaves, bytes(text))

    def _as_json(self) -> bytes:
        # `ragged` and `sparse` stand there only where they are so.
        leaves = [
            {key: value for key, value in leaf.items() if key in _KEYS or value}
            for leaf in map(dataclasses.asdict, self.leaves)
        ]
        record = {"format": FORMAT_VERSION, "nest": to_plain(self.nest), "leaves": leaves}
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
        if not collect(self.nest, batch, values):
            raise RecordError(f"The samples are nested differently. Expected {self}.")
        return values

    def pack(self, leaves: Sequence[Any]) -> Any:
        """Return the nest with a value at each leaf."""
        return map_nest(self.nest, lambda path, number: leaves[number])

    def __str__(self) -> str:
        return ", ".join(map(str, self.leaves))


def _kind(name: str) -> DataType:
    try:
        return kind_of_dtype(np.dtype(name))
    except TypeError:
        import ml_dtypes

        return kind_of_dtype(np.dtype(getattr(ml_dtypes, name)))


def _leaf_of(path: str, spec: Any) -> Leaf:
    """Return the leaf that a specification of its batches says."""
    try:
        sizes = tuple(spec.shape)
        dtype = str(getattr(spec.dtype, "name", spec.dtype))
    except (AttributeError, TypeError, ValueError) as error:
        raise RecordError(f"{path} is {spec!r}. Expected an array of known rank and dtype.") from error
    if not sizes:
        raise RecordError(f"{path} is a single value. Expected an array whose first dimension is the batch.")
    name = STRING if dtype in ("object", "str", "bytes") else dtype
    try:
        dtype = name if name == STRING else _kind(name).numpy_name
    except (TensorError, TypeError, AttributeError) as error:
        raise RecordError(
            f"{path} cannot be sent: it is of dtype {dtype}. Expected numbers that TensorFlow has, or strings."
        ) from error
    ragged = int(getattr(spec, "ragged_rank", 0))
    # TensorFlow's specification of sparse tensors has no attribute that says so.
    sparse = bool(getattr(spec, "sparse", type(spec).__name__ == "SparseTensorSpec"))
    shape = [None if size is None else int(size) for size in sizes[1:]]
    leaf = Leaf(path, dtype, (*[None] * ragged, *shape[ragged:]), ragged, sparse)
    try:
        _check(leaf)
    except ValueError as error:
        raise RecordError(f"{path} cannot be sent: {error}.") from error
    return leaf


def _check(leaf: Leaf) -> None:
    if not all(size is None or (type(size) is int and size >= 0) for size in leaf.shape):
        raise ValueError(f"{leaf.name} has the shape {leaf.shape}")
    if not leaf.is_string and leaf.numpy_dtype.name != leaf.dtype:
        raise ValueError(f"{leaf.name} has the dtype {leaf.dtype}")
    if math.prod(size for size in leaf.shape if size) * leaf.numpy_dtype.itemsize >= _MOST_BYTES:
        raise ValueError(f"{leaf} is larger than a record")
    rank = len(leaf.shape)
    if type(leaf.ragged) is not int or not 0 <= leaf.ragged <= rank or type(leaf.sparse) is not bool:
        raise ValueError(f"{leaf.name} is ragged in {leaf.ragged!r} of {rank} dimensions, sparse is {leaf.sparse!r}")
    if leaf.ragged and (
        leaf.sparse or any(size is not None for size in leaf.shape[: leaf.ragged]) or None in leaf.shape[leaf.ragged :]
    ):
        raise ValueError(f"{leaf}: its {leaf.ragged} ragged dimensions come first and are open, the others are not")
    if leaf.sparse and not rank:
        raise ValueError(f"{leaf} has no dimension")
