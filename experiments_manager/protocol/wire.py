"""Predict's messages as bytes, without the copies and objects that a parser and a serialiser make.

A tensor of twelve megabytes is copied twice on its way through a parsed message, and three times on the way back, which
takes as long as sending it. Here its bytes are cut out of a request before the rest is parsed; whatever looks unusual
is left to the parser. In a reply, floats of any size are put behind a head that is the same for all arrays of a shape.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from experiments_manager.protocol import messages, tensors

LARGE = 1 << 16
"""Bytes from which on a tensor is worth the trouble."""

MAX_FIELDS = 256
"""Fields of one message that are looked at here, one by one; the parser is quicker with many, such as strings."""

_LENGTH_DELIMITED = 2
_INPUTS, _OUTPUTS = 2, 1  # fields of PredictRequest and PredictResponse
_KEY, _VALUE = 1, 2  # fields of an entry of a map
_CONTENT, _FLOAT, _DOUBLE = 4, 5, 6  # fields of TensorProto
_VALUES = frozenset(range(_CONTENT, 18)) - {14, 15}
_PLAIN = frozenset({np.dtype("<f4"), np.dtype("<f8")})
"""Types whose typed field holds the bytes of the array."""
_DTYPES_OF = {_FLOAT: (1,), _DOUBLE: (2,), _CONTENT: (1, 2, 3, 4, 5, 6, 9, 17, 19, 22, 23)}


class _Unusual(Exception):
    """The message is for the parser."""


def read_predict_request(data: bytes) -> tuple[Any, dict[str, np.ndarray]]:
    """Parse a `PredictRequest`.

    Args:
        data: The serialised message.

    Returns:
        The request (of `messages.raw`), and arrays of those inputs whose values were cut out of it; they are read-only
        views of `data`.

    Raises:
        google.protobuf.message.DecodeError: It is no such message.
    """
    kind = messages.raw.PredictRequest
    if len(data) >= LARGE:
        try:
            rest, cuts = _cut(memoryview(data))
            request = kind.FromString(rest)
            arrays = {name.decode(): _view(data, request.inputs[name.decode()], cut) for name, cut in cuts.items()}
            return request, arrays
        except (_Unusual, UnicodeDecodeError):
            pass
    return kind.FromString(data), {}


def write_predict_response(spec: bytes, outputs: Mapping[str, np.ndarray], *, content: bool = False) -> bytes:
    """Serialise a `PredictResponse`.

    Args:
        spec: Who answers; see `answering_spec`.
        outputs: Arrays by name.
        content: Whether numbers go to `tensor_content`, and not to the fields of their types.

    Raises:
        tensors.TensorError: An output cannot be sent.
    """
    pieces: list[Any] = [spec]
    for name, array in outputs.items():
        if array.dtype in _PLAIN and array.nbytes:
            array = np.ascontiguousarray(array) if array.ndim else array
            pieces += [_head(name, array.dtype == np.float32, array.shape, content), array.data]
        else:
            response = messages.raw.PredictResponse()
            tensors.to_proto(array, response.outputs[name], typed=not content)
            pieces.append(response.SerializeToString())
    return b"".join(pieces)


@functools.lru_cache(maxsize=1024)
def answering_spec(model: str, version: int, signature: str) -> bytes:
    """Return the part of a serialised `PredictResponse` that says who answers: a response without outputs."""
    response = messages.raw.PredictResponse()
    response.model_spec.name = model
    response.model_spec.version.value = version
    response.model_spec.signature_name = signature
    return response.SerializeToString()


@functools.lru_cache(maxsize=1024)
def _head(name: str, single: bool, shape: tuple[int, ...], content: bool) -> bytes:
    """Return all that comes before the values of an output of floats; those of one model have few shapes."""
    number, field, size = (1, _FLOAT, 4) if single else (2, _DOUBLE, 8)
    field = _CONTENT if content else field
    size *= math.prod(shape)
    tensor = messages.TensorProto(dtype=number)
    tensor.tensor_shape.SetInParent()
    for length in shape:
        tensor.tensor_shape.dim.add().size = length
    prefix = tensor.SerializeToString() + _tag(field) + _varint(size)
    key = name.encode()
    entry = _tag(_KEY) + _varint(len(key)) + key + _tag(_VALUE) + _varint(len(prefix) + size)
    return _tag(_OUTPUTS) + _varint(len(entry) + len(prefix) + size) + entry + prefix


def _cut(data: memoryview) -> tuple[bytes, dict[bytes, tuple[int, int, int]]]:
    """Cut large values out of a request; return the rest, and (field, start, end) by input name."""
    pieces: list[Any] = []
    cuts: dict[bytes, tuple[int, int, int]] = {}
    names: set[bytes] = set()
    for field, kind, begin, start, end in _fields(data, 0, len(data)):
        if field != _INPUTS or kind != _LENGTH_DELIMITED:
            pieces.append(data[begin:end])
            continue
        name, entry, cut = _cut_entry(data, start, end)
        if name in names:
            raise _Unusual  # the last one counts: leave that to the parser
        names.add(name)
        if cut:
            cuts[name] = cut
        pieces += [_tag(_INPUTS), _varint(sum(map(len, entry))), *entry]
    return b"".join(pieces), cuts


def _cut_entry(data: memoryview, start: int, end: int) -> tuple[bytes, list[Any], tuple[int, int, int] | None]:
    name, values, cut = b"", None, None
    for field, kind, _, begin, stop in _fields(data, start, end):
        if kind != _LENGTH_DELIMITED or field not in (_KEY, _VALUE):
            raise _Unusual
        if field == _KEY:
            name = bytes(data[begin:stop])
        elif values is not None:
            raise _Unusual
        else:
            values, cut = _cut_tensor(data, begin, stop)
    values = values or []
    entry = [_tag(_KEY), _varint(len(name)), name, _tag(_VALUE), _varint(sum(map(len, values))), *values]
    return name, entry, cut


def _cut_tensor(data: memoryview, start: int, end: int) -> tuple[list[Any], tuple[int, int, int] | None]:
    pieces: list[Any] = []
    cut = None
    count = 0
    for field, kind, begin, first, stop in _fields(data, start, end):
        count += field in _VALUES
        if field in _DTYPES_OF and kind == _LENGTH_DELIMITED and stop - first >= LARGE:
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
    dtype = tensors.numpy_dtype(tensor.dtype)
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
        tag, at = _read_varint(data, at, end)
        kind = tag & 7
        if kind == 0:
            first = at
            _, at = _read_varint(data, at, end)
        elif kind == _LENGTH_DELIMITED:
            length, first = _read_varint(data, at, end)
            at = first + length
        elif kind in (1, 5):
            first, at = at, at + (8 if kind == 1 else 4)
        else:
            raise _Unusual
        if at > end:
            raise _Unusual
        yield tag >> 3, kind, begin, first, at


def _read_varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if at >= end:
            raise _Unusual
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _Unusual


def _tag(field: int) -> bytes:
    return bytes([field << 3 | _LENGTH_DELIMITED])


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
