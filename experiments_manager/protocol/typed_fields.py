"""Numbers in the typed fields of a `TensorProto`: `float_val`, `int_val`, `half_val`, ….

They never turn into Python's, provided that the message is one of `messages.raw`.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from experiments_manager.protocol import messages, varints
from experiments_manager.protocol.dtypes import DataType, TensorError, dtype_of


def read_numbers(tensor: Any, kind: DataType, count: int) -> np.ndarray:
    """Read the values of the field of a type, as many as there are.

    Args:
        tensor: The message.
        kind: Its type.
        count: How many there should be.

    Raises:
        TensorError: The field is malformed, or holds numbers that the type does not.
    """
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


def write_numbers(tensor: Any, array: np.ndarray, kind: DataType) -> None:
    """Write numbers into the field of their type.

    Args:
        tensor: The message.
        array: The numbers, of any shape.
        kind: Their type.
    """
    if kind.field == "float8_val":
        tensor.float8_val = array.tobytes()
        return
    payload = _packed(array, kind)
    if not payload:
        return
    if _is_raw(type(tensor)):
        getattr(tensor, kind.field).append(payload)
        return
    # Parsing a packed field is one copy; adding its numbers one by one would make a Python number of each.
    tensor.MergeFromString(varints.field(tensor.DESCRIPTOR.fields_by_name[kind.field].number, payload))


def _packed(array: np.ndarray, kind: DataType) -> bytes:
    flat = array.ravel()
    if kind.packed_as is not None:
        return flat.astype(kind.packed_as, copy=False).tobytes()
    if kind.field == "half_val":
        return varints.encode(flat.view(np.uint16))
    if kind.numpy_name.endswith("int4"):
        return varints.encode(flat.astype(np.int8))
    return varints.encode(flat.astype(np.uint8) if kind.field == "bool_val" else flat)
