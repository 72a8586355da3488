"""NumPy arrays to `TensorProto` and back, as TensorFlow does it, without TensorFlow.

A tensor's values are either in `tensor_content`, as the bytes of the array, or in the field of its type (`float_val`,
`int_val`, …); both are read alike. Numbers never turn into Python's, provided that the message is one of
`messages.raw`.

Every malformed message ends in a `TensorError` with a sentence, and nothing is allocated for a shape that a message
only claims.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments_manager.protocol import messages, varints
from experiments_manager.protocol.dtypes import DataType, TensorError, dtype_of, kind_of, kind_of_dtype
from experiments_manager.protocol.typed_fields import read_numbers, write_numbers
from experiments_manager.protocol.varints import field_head

__all__ = ["FILL_LIMIT", "TensorError", "answering_spec", "to_array", "to_proto", "write_predict_response"]

FILL_LIMIT = 1 << 26
"""Bytes that a tensor may take whose message holds fewer values than its shape has elements."""

_MESSAGE_LIMIT = (1 << 31) - 1  # bytes of a protobuf message
_KEY, _VALUE, _OUTPUTS = 1, 2, 1  # fields of an entry of a map, and of PredictResponse
_FLOATS = {np.dtype("<f4"): (1, 5), np.dtype("<f8"): (2, 6)}
"""Types whose typed field holds the bytes of the array: their numbers, and the numbers of these fields."""
_CONTENT = 4


def to_array(tensor: Any, *, copy: bool = False, fill_limit: int = FILL_LIMIT) -> np.ndarray:
    """Read a tensor.

    As in TensorFlow, a message with fewer values than elements repeats the last one, and one without any values is
    full of zeros (or of empty strings).

    Args:
        tensor: `TensorProto` of `messages`, of `messages.raw`, or TensorFlow's own.
        copy: Gives an array that may be changed, always; without it, one that shares the message's bytes is read-only.
        fill_limit: Largest size in bytes of a tensor whose values are repeated.

    Returns:
        The array; strings are `bytes` objects in an array of dtype `object`.

    Raises:
        TensorError: The message is malformed.
    """
    kind = kind_of(tensor.dtype)
    shape = _shape(tensor)
    count = math.prod(shape)
    content = tensor.tensor_content
    if kind.field == "string_val":
        values = _content_strings(content, count) if content else _strings(tensor)
    elif content:
        values = _content_numbers(content, kind, count)
    else:
        values = read_numbers(tensor, kind, count)
    if values.size != count:
        values = _filled(values, count, shape, fill_limit)
    try:
        values = values.reshape(shape)
    except ValueError as error:
        raise TensorError(f"NumPy has no array with the tensor's {len(shape)} dimensions: {error}.") from error
    return values.copy() if copy and not values.flags.writeable else values


def _shape(tensor: Any) -> tuple[int, ...]:
    if tensor.tensor_shape.unknown_rank:
        raise TensorError("The tensor's rank is unknown. Expected the size of every dimension.")
    shape = tuple([dim.size for dim in tensor.tensor_shape.dim])
    if shape and min(shape) < 0:
        raise TensorError(
            f"The tensor's shape {_text(shape)} has a negative dimension. Expected the size of every one."
        )
    return shape


def _text(shape: tuple[int, ...]) -> str:
    listed = [str(size) for size in shape[:8]] + ["…"] * (len(shape) > 8)
    return f"[{','.join(listed)}]"


def _content_numbers(content: bytes, kind: DataType, count: int) -> np.ndarray:
    dtype = dtype_of(kind)
    if len(content) != count * dtype.itemsize:
        raise TensorError(
            f"The tensor's tensor_content has {len(content)} bytes. Expected {count * dtype.itemsize}, "
            f"for {count} elements of {kind.enum_name}."
        )
    if kind.field == "bool_val":
        return np.frombuffer(content, np.uint8) != 0
    return np.frombuffer(content, dtype)


def _content_strings(content: bytes, count: int) -> np.ndarray:
    """Read all lengths, as variable-length integers, and then all strings: `port::EncodeStringList` of TensorFlow."""
    ends_of_lengths = np.flatnonzero(np.frombuffer(content, np.uint8) < 0x80)[:count]
    if count == 0 or ends_of_lengths.size < count:
        raise TensorError(f"The tensor's tensor_content does not hold the lengths of {count} strings.")
    start = int(ends_of_lengths[-1]) + 1
    try:
        lengths = varints.decode(content[:start]).tolist()
    except ValueError as error:
        raise TensorError(f"The lengths of strings in the tensor's tensor_content are malformed: {error}.") from error
    if start + sum(lengths) != len(content):
        raise TensorError(f"The tensor's tensor_content has {len(content)} bytes. Expected {start + sum(lengths)}.")
    values = np.empty(count, object)
    for index, length in enumerate(lengths):
        values[index] = content[start : start + length]
        start += length
    return values


def _strings(tensor: Any) -> np.ndarray:
    values = np.empty(len(tensor.string_val), object)
    values[:] = list(tensor.string_val)
    return values


def _filled(values: np.ndarray, count: int, shape: tuple[int, ...], limit: int) -> np.ndarray:
    if values.size > count:
        raise TensorError(f"The tensor holds {values.size} values. Expected {count}, for the shape {_text(shape)}.")
    size = count * values.dtype.itemsize
    if size > limit:
        raise TensorError(
            f"The tensor claims the shape {_text(shape)}, of {size} bytes, and holds {values.size} values. "
            f"Expected all of them: only tensors of at most {limit} bytes are filled up."
        )
    filled = np.empty(count, values.dtype)
    filled[: values.size] = values
    filled[values.size :] = values[-1] if values.size else (b"" if values.dtype == object else 0)
    return filled


def to_proto(array: Any, into: Any = None, *, typed: bool = False) -> Any:
    """Write a tensor.

    Args:
        array: An array, or what NumPy makes one of; text is written as UTF-8.
        into: An empty `TensorProto` to fill, such as `request.inputs["x"]`; a new one of `messages` by default.
        typed: Writes numbers into the field of their type, as TensorFlow Serving's replies do, and not into
            `tensor_content`.

    Returns:
        The message.

    Raises:
        TensorError: TensorFlow has no such dtype, or the array is larger than a message can be.
    """
    array = np.asarray(array)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    kind = kind_of_dtype(array.dtype)
    tensor = messages.TensorProto() if into is None else into
    if kind.field != "string_val" and array.nbytes > _MESSAGE_LIMIT:
        raise TensorError(f"The array has {array.nbytes} bytes. Expected at most {_MESSAGE_LIMIT}: send it in parts.")
    tensor.dtype = kind.number
    tensor.tensor_shape.SetInParent()
    for size in array.shape:
        tensor.tensor_shape.dim.add().size = size
    if kind.field == "string_val":
        tensor.string_val.extend(_as_bytes(item) for item in array.ravel().tolist())
    elif typed:
        write_numbers(tensor, array, kind)
    else:
        tensor.tensor_content = array.tobytes()
    return tensor


def _as_bytes(item: Any) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, bytes):
        return item
    raise TensorError(f"A tensor of strings cannot hold {item!r}. Expected text or bytes, got {type(item).__name__}.")


def write_predict_response(spec: bytes, outputs: Mapping[str, np.ndarray], *, content: bool = False) -> bytes:
    """Serialise a `PredictResponse`.

    Args:
        spec: Who answers; see `answering_spec`.
        outputs: Arrays by name.
        content: Whether numbers go to `tensor_content`, and not to the fields of their types.

    Raises:
        TensorError: An output cannot be sent.
    """
    pieces: list[Any] = [spec]
    for name, array in outputs.items():
        if array.dtype in _FLOATS and array.nbytes:
            array = np.ascontiguousarray(array) if array.ndim else array
            pieces += [_head(name, array.dtype, array.shape, content), array.data]
        else:
            response = messages.raw.PredictResponse()
            to_proto(array, response.outputs[name], typed=not content)
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
def _head(name: str, dtype: np.dtype, shape: tuple[int, ...], content: bool) -> bytes:
    """Return all that comes before the values of an output of floats; those of one model have few shapes."""
    number, field = _FLOATS[dtype]
    size = dtype.itemsize * math.prod(shape)
    tensor = messages.TensorProto(dtype=number)
    tensor.tensor_shape.SetInParent()
    for length in shape:
        tensor.tensor_shape.dim.add().size = length
    prefix = tensor.SerializeToString() + field_head(_CONTENT if content else field, size)
    entry = varints.field(_KEY, name.encode()) + field_head(_VALUE, len(prefix) + size)
    return field_head(_OUTPUTS, len(entry) + len(prefix) + size) + entry + prefix
