"""TensorFlow's data types: their numbers, their NumPy types, and where a `TensorProto` keeps their values."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np


class TensorError(ValueError):
    """A message is no tensor, or an array cannot be one; the text says why."""


@dataclasses.dataclass(frozen=True, eq=False)  # compared and hashed by identity: there is one of each
class DataType:
    """One of TensorFlow's data types.

    Attributes:
        number: Its number in TensorFlow's enumeration `DataType`.
        enum_name: Its name there, such as `DT_FLOAT`.
        numpy_name: The name of the NumPy dtype, of `ml_dtypes` where NumPy has none; `object` for strings.
        field: The field of `TensorProto` for its values.
        packed_as: The dtype of the items in the packed field; None where they are variable-length integers.
    """

    number: int
    enum_name: str
    numpy_name: str
    field: str
    packed_as: str | None = None

    @property
    def text(self) -> str:
        """What TensorFlow's error messages call it: `float`, `double`, `int32`, `string` …"""
        return self.enum_name.removeprefix("DT_").lower()


_KINDS = (
    DataType(1, "DT_FLOAT", "float32", "float_val", "<f4"),
    DataType(2, "DT_DOUBLE", "float64", "double_val", "<f8"),
    DataType(3, "DT_INT32", "int32", "int_val"),
    DataType(4, "DT_UINT8", "uint8", "int_val"),
    DataType(5, "DT_INT16", "int16", "int_val"),
    DataType(6, "DT_INT8", "int8", "int_val"),
    DataType(7, "DT_STRING", "object", "string_val"),
    DataType(8, "DT_COMPLEX64", "complex64", "scomplex_val", "<c8"),
    DataType(9, "DT_INT64", "int64", "int64_val"),
    DataType(10, "DT_BOOL", "bool", "bool_val"),
    DataType(14, "DT_BFLOAT16", "bfloat16", "half_val"),
    DataType(17, "DT_UINT16", "uint16", "int_val"),
    DataType(18, "DT_COMPLEX128", "complex128", "dcomplex_val", "<c16"),
    DataType(19, "DT_HALF", "float16", "half_val"),
    DataType(22, "DT_UINT32", "uint32", "uint32_val"),
    DataType(23, "DT_UINT64", "uint64", "uint64_val"),
    DataType(24, "DT_FLOAT8_E5M2", "float8_e5m2", "float8_val"),
    DataType(25, "DT_FLOAT8_E4M3FN", "float8_e4m3fn", "float8_val"),
    DataType(29, "DT_INT4", "int4", "int_val"),
    DataType(30, "DT_UINT4", "uint4", "int_val"),
)
_BY_NUMBER = {kind.number: kind for kind in _KINDS}
_BY_NUMPY_NAME = {kind.numpy_name: kind for kind in _KINDS}
_REFUSED = {
    0: "DT_INVALID",
    11: "DT_QINT8",
    12: "DT_QUINT8",
    13: "DT_QINT32",
    15: "DT_QINT16",
    16: "DT_QUINT16",
    20: "DT_RESOURCE",
    21: "DT_VARIANT",
}


@functools.lru_cache(maxsize=256)
def kind_of(number: int) -> DataType:
    """Return the data type with a number of TensorFlow's enumeration `DataType`.

    Raises:
        TensorError: There is none, or its tensors cannot be sent (quantised types, resources, variants).
    """
    kind = _BY_NUMBER.get(number)
    if kind is None:
        name = _REFUSED.get(number)
        what = f"Tensors of type {name} cannot be sent" if name else f"There is no tensor of data type {number}"
        raise TensorError(f"{what}. Expected one of {', '.join(kind.enum_name for kind in _KINDS)}.")
    return kind


def numpy_dtype(number: int) -> np.dtype:
    """Return the NumPy dtype of a number of TensorFlow's enumeration `DataType`; `object` for strings.

    Raises:
        TensorError: As for `kind_of`; or the package `ml_dtypes`, which has the types that NumPy lacks, is missing.
    """
    return dtype_of(kind_of(number))


@functools.cache
def dtype_of(kind: DataType) -> np.dtype:
    """Return the NumPy dtype of a data type; as `numpy_dtype`."""
    try:
        return np.dtype(kind.numpy_name)
    except TypeError:
        pass
    try:
        import ml_dtypes
    except ImportError as error:
        raise TensorError(
            f"NumPy has no type {kind.numpy_name} ({kind.enum_name}). Its package: pip install ml_dtypes"
        ) from error
    return np.dtype(getattr(ml_dtypes, kind.numpy_name))


def dtype_number(dtype: np.dtype | str | type) -> int:
    """Return the number in TensorFlow's enumeration `DataType` of a NumPy dtype; text and bytes are `DT_STRING`.

    Raises:
        TensorError: TensorFlow has no such type.
    """
    return kind_of_dtype(np.dtype(dtype)).number


@functools.lru_cache(maxsize=256)
def kind_of_dtype(dtype: np.dtype) -> DataType:
    """Return the data type of arrays of a NumPy dtype; as `dtype_number`."""
    name = "object" if dtype.kind in "SUO" else dtype.name
    kind = _BY_NUMPY_NAME.get(name)
    if kind is None:
        known = ", ".join(name for name in _BY_NUMPY_NAME if name != "object")
        raise TensorError(f"TensorFlow has no tensors of dtype {dtype}. Expected one of {known}, text or bytes.")
    return kind
