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
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from experiments_manager.protocol import messages, varints
from experiments_manager.protocol.dtypes import (
    DataType,
    TensorError,
    dtype_number,
    dtype_of,
    kind_of,
    kind_of_dtype,
    numpy_dtype,
)

__all__ = ["FILL_LIMIT", "TensorError", "dtype_number", "numpy_dtype", "to_array", "to_proto"]

FILL_LIMIT = 1 << 26
"""Bytes that a tensor may take whose message holds fewer values than its shape has elements."""

_MESSAGE_LIMIT = (1 << 31) - 1  # bytes of a protobuf message
_LENGTH_DELIMITED = 2  # protobuf's wire type


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
        values = _numbers(tensor, kind, count)
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


def _numbers(tensor: Any, kind: DataType, count: int) -> np.ndarray:
    """Read the values of a typed field, as many as there are."""
    field = getattr(tensor, kind.field)
    if kind.field == "float8_val":
        return np.frombuffer(field, dtype_of(kind))
    if not _is_raw(type(tensor)):
        return _from_python_numbers(field, kind)
    values = _from_packed(b"".join(field) if len(field) != 1 else field[0], kind)
    if values.size < count and (unpacked := _unpacked_numbers(tensor, kind)) is not None:
        if values.size:
            raise TensorError(f"The tensor's {kind.field} is packed in part. Expected all values of it in one way.")
        return unpacked
    return values


@functools.cache
def _is_raw(message_class: type) -> bool:
    field = message_class.DESCRIPTOR.fields_by_name["float_val"]
    return field.type == field.TYPE_BYTES


def _unpacked_numbers(tensor: Any, kind: DataType) -> np.ndarray | None:
    """Read values that stand alone, each with its tag, for which the raw class knows no field."""
    from google.protobuf.unknown_fields import UnknownFieldSet

    if not len(UnknownFieldSet(tensor)):
        return None
    try:
        again = messages.TensorProto.FromString(tensor.SerializeToString())
    except DecodeError as error:  # in a field that is not this one, and that the raw class takes for bytes
        raise TensorError(f"The tensor's values are malformed: {error}.") from error
    return _from_python_numbers(getattr(again, kind.field), kind)


def _from_python_numbers(field: Any, kind: DataType) -> np.ndarray:
    if kind.packed_as is None:
        return _narrowed(np.fromiter(field, _wide(kind), len(field)), kind)
    dtype = np.dtype(kind.packed_as)
    if dtype.kind == "c":
        parts = np.fromiter(field, f"<f{dtype.itemsize // 2}", len(field))
        return _from_packed(parts.tobytes(), kind)
    return np.fromiter(field, dtype, len(field))


def _from_packed(payload: bytes, kind: DataType) -> np.ndarray:
    if kind.packed_as is None:
        try:
            values = varints.decode(payload)
        except ValueError as error:
            raise TensorError(f"The tensor's {kind.field} is malformed: {error}.") from error
        return _narrowed(values.view(_wide(kind)), kind)
    dtype = np.dtype(kind.packed_as)
    if len(payload) % dtype.itemsize:
        raise TensorError(
            f"The tensor's {kind.field} has {len(payload)} bytes. Expected a multiple of {dtype.itemsize}, "
            f"for elements of {kind.enum_name}."
        )
    return np.frombuffer(payload, dtype)


def _wide(kind: DataType) -> type:
    return np.uint64 if kind.field == "uint64_val" else np.int64


def _narrowed(values: np.ndarray, kind: DataType) -> np.ndarray:
    """Turn wide integers into the type's own, refusing those that it does not hold."""
    if kind.field == "bool_val":
        return values != 0
    if kind.numpy_name in ("int64", "uint64"):
        return values
    dtype = dtype_of(kind)
    if kind.field == "half_val":
        lowest, highest = 0, 0xFFFF
    elif kind.numpy_name.endswith("int4"):
        lowest, highest = (-8, 7) if kind.numpy_name == "int4" else (0, 15)
    else:
        lowest, highest = np.iinfo(dtype).min, np.iinfo(dtype).max
    if values.size and (values.min() < lowest or values.max() > highest):
        outside = values[(values < lowest) | (values > highest)][0]
        raise TensorError(
            f"The tensor's {kind.field} holds {outside}. Expected {lowest} to {highest} in {kind.enum_name}."
        )
    if kind.field == "half_val":
        return values.astype(np.uint16).view(dtype)
    return values.astype(dtype)


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
    elif kind.field == "float8_val" and typed:
        tensor.float8_val = array.tobytes()
    elif typed:
        _add_packed(tensor, kind, _packed(array, kind))
    else:
        tensor.tensor_content = array.tobytes()
    return tensor


def _as_bytes(item: Any) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, bytes):
        return item
    raise TensorError(f"A tensor of strings cannot hold {item!r}. Expected text or bytes, got {type(item).__name__}.")


def _packed(array: np.ndarray, kind: DataType) -> bytes:
    flat = array.ravel()
    if kind.packed_as is not None:
        return flat.astype(kind.packed_as, copy=False).tobytes()
    if kind.field == "half_val":
        return varints.encode(flat.view(np.uint16))
    if kind.numpy_name.endswith("int4"):
        return varints.encode(flat.astype(np.int8))
    return varints.encode(flat.astype(np.uint8) if kind.field == "bool_val" else flat)


def _add_packed(tensor: Any, kind: DataType, payload: bytes) -> None:
    if not payload:
        return
    if _is_raw(type(tensor)):
        getattr(tensor, kind.field).append(payload)
        return
    # Parsing a packed field is one copy; adding its numbers one by one would make a Python number of each.
    number = tensor.DESCRIPTOR.fields_by_name[kind.field].number
    head = varints.encode(np.array([number << 3 | _LENGTH_DELIMITED, len(payload)], np.uint64))
    tensor.MergeFromString(head + payload)
