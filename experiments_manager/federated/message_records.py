"""What messages hold: variables as the `ArrayRecord` in which Flower sends and aggregates them, and the fixed words.

Flower writes arrays as `.npy` and computes with what comes out of it. That does not know `bfloat16` and the like, so
these travel as `float32`, which holds each of their values, and `array_dtypes` of the message says what they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments_manager.federated.errors import FederationError

if TYPE_CHECKING:
    from flwr.app import ArrayRecord

EXAMPLES = "num-examples"
"""The metric by which clients are weighted."""
CLIENT, PROC_ID, ERROR = "client", "proc-id", "error"
"""The record in which a client tells of itself: its number, and in one sentence why it could not do the work."""
SECURE = "secure"
"""The record of a message of SecAgg+: the node that it is for, the round, and what all masks are made for."""
NODE, ROUND, SHARES, THRESHOLD, MAX_WEIGHT = "node-id", "server-round", "shares", "threshold", "max-weight"
ARRAY_DTYPES = "array-dtypes"
"""Key of the `config` record under which stand `"DTYPE NAME"` of all arrays that travel as another type."""
_NUMBERS = "biufc"


def named_dtype(name: str) -> np.dtype:
    """Return the data type of a name, also of those that NumPy does not have by itself, such as `bfloat16`."""
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        return np.dtype(getattr(ml_dtypes, name))


def to_record(arrays: Mapping[str, np.ndarray]) -> ArrayRecord:
    """Return arrays as a record that strategies can compute with; the order of the names is kept.

    Raises:
        FederationError: An array holds no numbers.
    """
    from flwr.app import Array, ArrayRecord

    return ArrayRecord({name: Array(_widened(name, np.asarray(array))) for name, array in arrays.items()})


def widened_dtypes(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Return `"DTYPE NAME"` of each array that `to_record` turns into another type."""
    return [f"{array.dtype.name} {name}" for name, array in arrays.items() if not _is_native(array.dtype)]


def to_arrays(record: ArrayRecord, dtypes: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """Return the arrays of a record.

    Args:
        record: What `to_record` or a strategy made.
        dtypes: What `widened_dtypes` gave for it.
    """
    arrays = {name: array.numpy() for name, array in record.items()}
    for entry in dtypes:
        dtype, _, name = entry.partition(" ")
        if name in arrays:
            arrays[name] = arrays[name].astype(named_dtype(dtype))
    return arrays


def cast_like(arrays: Mapping[str, np.ndarray], like: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return aggregated arrays in the order and the types of the variables.

    Raises:
        FederationError: They have other names or shapes than the variables.
    """
    if set(arrays) != set(like):
        other = ", ".join(sorted(set(arrays) ^ set(like)))
        raise FederationError(
            f"The strategy returned other arrays than it was given. Expected the same {len(like)} names; missing or "
            f"new are: {other}. Fix the strategy: it must return what it was given, aggregated."
        )
    for name, variable in like.items():
        if arrays[name].shape != np.shape(variable):
            raise FederationError(
                f"The strategy changed the shape of {name}. Expected {np.shape(variable)}, got {arrays[name].shape}. "
                "Fix the strategy: it must keep the shapes of the arrays that it aggregates."
            )
    return {name: in_dtype(arrays[name], np.asarray(variable).dtype) for name, variable in like.items()}


def in_dtype(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return an aggregated array in the type of its variable: to the nearest integer, to `True` from one half on."""
    if array.dtype.kind != "f" or dtype.kind not in "biu":
        return np.asarray(array).astype(dtype, copy=False)
    if dtype.kind == "b":
        return np.asarray(array >= 0.5)
    whole, limits = np.rint(array), np.iinfo(dtype)
    # The largest integers of 64 bits are no floating-point numbers: what is beyond them becomes the largest one.
    inside = np.asarray(np.where((whole >= limits.min) & (whole < limits.max), whole, 0)).astype(dtype)
    beyond = np.where(
        whole >= limits.max, dtype.type(limits.max), np.where(whole < limits.min, dtype.type(limits.min), inside)
    )
    return np.asarray(beyond).astype(dtype)


def _is_native(dtype: np.dtype) -> bool:
    return np.dtype(dtype.str) == dtype


def _widened(name: str, array: np.ndarray) -> np.ndarray:
    if not _is_native(array.dtype):
        return array.astype(np.float32)
    if array.dtype.kind not in _NUMBERS:
        raise FederationError(
            f"{name} cannot be aggregated. Expected numbers, got {array.dtype}. Keep it at the client "
            "(federated_local_layers)."
        )
    return array


def grouped(arrays: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return arrays whose names are `GROUP/NAME` by their groups and names."""
    groups: dict[str, dict[str, Any]] = {}
    for name, value in arrays.items():
        group, _, rest = name.partition("/")
        groups.setdefault(group, {})[rest] = value
    return groups


def ungrouped(groups: Mapping[Any, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the arrays of groups by `GROUP/NAME`."""
    return {f"{group}/{name}": value for group, held in groups.items() for name, value in held.items()}
