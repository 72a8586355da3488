"""Large Predict requests, read without the copies that a parser makes.

A tensor of twelve megabytes is copied twice on its way through a parsed message, which takes as long as sending it.
Here its bytes are cut out of a request before the rest is parsed; whatever looks unusual is left to the parser.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments_manager.protocol import messages
from experiments_manager.protocol.dtypes import numpy_dtype
from experiments_manager.protocol.varints import LENGTH_DELIMITED, decode_one, field_head

LARGE = 1 << 16
"""Bytes from which on a tensor is worth the trouble."""

MAX_FIELDS = 256
"""Fields of one message that are looked at here, one by one; the parser is quicker with many, such as strings."""

_INPUTS = 2  # field of PredictRequest
_KEY, _VALUE = 1, 2  # fields of an entry of a map
_CONTENT, _FLOAT, _DOUBLE = 4, 5, 6  # fields of TensorProto
_VALUES = frozenset(range(_CONTENT, 18)) - {14, 15}
_DTYPES_OF = {_FLOAT: (1,), _DOUBLE: (2,), _CONTENT: (1, 2, 3, 4, 5, 6, 9, 17, 19, 22, 23)}


class _Unusual(ValueError):
    """The message is for the parser."""


def read_predict_request(data: bytes) -> tuple[Any, dict[str, np.ndarray]]:
    """Parse a `PredictRequest` of at least `LARGE` bytes.

    Args:
        data: The serialised message.

    Returns:
        The request (of `messages.raw`), and arrays of those inputs whose values were cut out of it; they are read-only
        views of `data`.

    Raises:
        google.protobuf.message.DecodeError: It is no such message.
    """
    kind = messages.raw.PredictRequest
    try:
        rest, cuts = _cut(memoryview(data))
        request = kind.FromString(rest)
        return request, {name.decode(): _view(data, request.inputs[name.decode()], cut) for name, cut in cuts.items()}
    except ValueError:  # what is unusual, or malformed
        return kind.FromString(data), {}


def _cut(data: memoryview) -> tuple[bytes, dict[bytes, tuple[int, int, int]]]:
    """Cut large values out of a request; return the rest, and (field, start, end) by input name."""
    pieces: list[Any] = []
    cuts: dict[bytes, tuple[int, int, int]] = {}
    names: set[bytes] = set()
    for field, kind, begin, start, end in _fields(data, 0, len(data)):
        if field != _INPUTS or kind != LENGTH_DELIMITED:
            pieces.append(data[begin:end])
            continue
        name, entry, cut = _cut_entry(data, start, end)
        if name in names:
            raise _Unusual  # the last one counts: leave that to the parser
        names.add(name)
        if cut:
            cuts[name] = cut
        pieces += [field_head(_INPUTS, sum(map(len, entry))), *entry]
    return b"".join(pieces), cuts


def _cut_entry(data: memoryview, start: int, end: int) -> tuple[bytes, list[Any], tuple[int, int, int] | None]:
    name, values, cut = b"", None, None
    for field, kind, _, begin, stop in _fields(data, start, end):
        if kind != LENGTH_DELIMITED or field not in (_KEY, _VALUE):
            raise _Unusual
        if field == _KEY:
            name = bytes(data[begin:stop])
        elif values is not None:
            raise _Unusual
        else:
            values, cut = _cut_tensor(data, begin, stop)
    values = values or []
    entry = [field_head(_KEY, len(name)), name, field_head(_VALUE, sum(map(len, values))), *values]
    return name, entry, cut


def _cut_tensor(data: memoryview, start: int, end: int) -> tuple[list[Any], tuple[int, int, int] | None]:
    pieces: list[Any] = []
    cut = None
    count = 0
    for field, kind, begin, first, stop in _fields(data, start, end):
        count += field in _VALUES
        if field in _DTYPES_OF and kind == LENGTH_DELIMITED and stop - first >= LARGE:
            cut = (field, first, stop)
        else:
            pieces.append(data[begin:stop])
    if cut and count > 1:
        raise _Unusual
    return pieces, cut


def _view(data: bytes, tensor: Any, cut: tuple[int, int, int]) -> np.ndarray:
    field, start, end = cut
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    if tensor.dtype not in _DTYPES_OF[field] or tensor.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise _Unusual
    dtype = numpy_dtype(tensor.dtype)
    count = math.prod(shape)
    if count * dtype.itemsize != end - start or len(shape) > 32:
        raise _Unusual
    return np.frombuffer(data, dtype, count, start).reshape(shape)


def _fields(data: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Walk over fields: number, wire type, where the field begins, and where its value begins and ends."""
    at, count = start, 0
    while at < end:
        begin, count = at, count + 1
        if count > MAX_FIELDS:
            raise _Unusual
        tag, at = decode_one(data, at, end)
        kind = tag & 7
        if kind == 0:
            first = at
            _, at = decode_one(data, at, end)
        elif kind == LENGTH_DELIMITED:
            length, first = decode_one(data, at, end)
            at = first + length
        elif kind in (1, 5):
            first, at = at, at + (8 if kind == 1 else 4)
        else:
            raise _Unusual
        if at > end:
            raise _Unusual
        yield tag >> 3, kind, begin, first, at
