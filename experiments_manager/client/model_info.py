"""What a server says of a model's inputs and outputs, and values made to fit them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments_manager.client.errors import ClientError
from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.protocol.dtypes import numpy_dtype


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """An input or output of a model.

    Attributes:
        dtype: Its NumPy type, `object` for strings.
        shape: Its sizes, `None` where any will do; `None` as a whole where even the rank is open.
    """

    dtype: np.dtype
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        dtype = "string" if self.dtype == object else self.dtype.name
        if self.shape is None:
            return f"{dtype} of any shape"
        return f"{dtype} [{', '.join('any' if size is None else str(size) for size in self.shape)}]"


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What a server says of a model.

    Attributes:
        name: Its name.
        version: The version that answered.
        inputs: Its inputs by name.
        outputs: Its outputs by name.
        optional: Names of the inputs that may be left out, as the model has values for them.
    """

    name: str
    version: int
    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    optional: frozenset[str] = frozenset()

    @property
    def required(self) -> dict[str, TensorInfo]:
        """The inputs that every request must have."""
        return {name: tensor for name, tensor in self.inputs.items() if name not in self.optional}


def tensor_info(described: Any) -> TensorInfo:
    """Read a `TensorInfo` message of a signature."""
    shape = described.tensor_shape
    sizes = None if shape.unknown_rank else tuple(dim.size if dim.size >= 0 else None for dim in shape.dim)
    return TensorInfo(numpy_dtype(described.dtype), sizes)


def named(inputs: Any, info: ModelInfo) -> Mapping[str, Any]:
    """Return the inputs by name, having looked that all are there and no others.

    Raises:
        ClientError: They are not.
    """
    if not isinstance(inputs, Mapping):
        if len(info.required) != 1:
            raise ClientError(
                f"The model has {len(info.inputs)} inputs, so each needs its name. Expected a dictionary with "
                f"{listed(info.inputs)}; got {type(inputs).__name__}."
            )
        return {next(iter(info.required)): inputs}
    if wrong := [name for name in inputs if name not in info.inputs]:
        hint = did_you_mean(str(wrong[0]), info.inputs, shown="'{}'")
        raise ClientError(
            f"The model has no input {wrong[0]!r}. Expected {listed(info.inputs)}; "
            f"got {', '.join(map(str, inputs))}. {hint}".rstrip()
        )
    if missing := [name for name in info.required if name not in inputs]:
        raise ClientError(
            f"The input {missing[0]!r} is missing. Expected {listed(info.inputs)}; "
            f"got {', '.join(map(str, inputs)) or 'none'}."
        )
    return inputs


def listed(inputs: Mapping[str, TensorInfo]) -> str:
    """Return the inputs as a message names them: `x (float32 [any, 2])`."""
    return ", ".join(f"{name} ({info})" for name, info in inputs.items())


def fitted(name: str, value: Any, info: ModelInfo) -> np.ndarray:
    """Convert a value to its input's type: float64 to float32, integers to float32, but never 0.5 to an integer.

    Raises:
        ClientError: That would not keep its kind, or it is not an array.
    """
    expected = info.inputs[name]
    try:
        array = np.asarray(value)
    except ValueError as error:  # such as lists of different lengths
        raise ClientError(f"Input {name}: expected {expected}, got an invalid array: {error}") from error
    if array.dtype == expected.dtype or (expected.dtype == object and array.dtype.kind in "SU"):
        return array
    if expected.dtype == object or array.dtype.kind in "SUO" or not _keeps_kind(array, expected.dtype):
        raise ClientError(
            f"Input {name}: expected {expected}, got {plain_name(array.dtype)} {list(array.shape)}. Convert it first."
        )
    return array.astype(expected.dtype)


def plain_name(dtype: np.dtype) -> str:
    """Return what messages call a type that a user gave: `float32`, `text`."""
    return {"U": "text", "S": "bytes", "O": "Python objects"}.get(dtype.kind, dtype.name)


def _keeps_kind(array: np.ndarray, dtype: np.dtype) -> bool:
    if array.dtype.kind in "iu" and dtype.kind in "iu":  # smaller integers, where all values fit
        limits = np.iinfo(dtype)
        return array.size == 0 or (int(array.min()) >= limits.min and int(array.max()) <= limits.max)
    if dtype.kind == "V" or array.dtype.kind == "V":  # types of ml_dtypes, such as bfloat16
        return array.dtype.kind in "fiuV"
    return np.can_cast(array.dtype, dtype, "same_kind")
