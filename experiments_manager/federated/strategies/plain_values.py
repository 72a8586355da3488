"""Values as what JSON can hold, with their arrays beside it, and back; without pickle."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord

from experiments_manager.common.generators import (
    HostGenerator,
    generator_state,
    made_generator,
    set_generator_state,
)

_DEEPEST = 20
_SEQUENCES: dict[str, type] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque}
_RECORDS: dict[str, type] = {"config": ConfigRecord, "metrics": MetricRecord}
_GENERATORS = {"Random": "random", "RandomState": "random_state", "SystemRandom": "system_random"}
"""How generators are called that are none of NumPy's newer ones."""
_FOREIGN = ("keras", "tensorflow", "torch", "logging", "threading", "_thread", "io", "_io")


class NotPlain(Exception):
    """A value that cannot be stored; the message names it."""


class Arrays(dict[str, np.ndarray]):
    """Arrays by the keys under which plain values name them.

    Args:
        name: What the keys begin with.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def key_of(self, array: np.ndarray) -> str:
        """Keep an array, which nobody may change later; return its key."""
        if array.dtype.hasobject:
            raise NotPlain("an array of Python objects")
        key = f"{self._name}.{len(self)}"
        self[key] = array
        return key

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Arrays)
            and list(self) == list(other)
            and all(
                mine.dtype == theirs.dtype and mine.shape == theirs.shape and mine.tobytes() == theirs.tobytes()
                for mine, theirs in zip(self.values(), other.values(), strict=True)
            )
        )

    __hash__ = None


def encoded(value: Any, arrays: Arrays, depth: int = 0) -> Any:
    """Return a value as plain values; its arrays are added to `arrays`.

    Raises:
        NotPlain: It holds something that cannot be stored.
    """
    if depth > _DEEPEST:
        raise NotPlain(f"something of more than {_DEEPEST} levels")
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, np.generic):
        return {"scalar": arrays.key_of(np.asarray(value))}
    if type(value) is np.ndarray:
        return {"array": arrays.key_of(value.copy())}
    if type(value) is bytes:
        return {"bytes": arrays.key_of(np.frombuffer(value, np.uint8))}
    if isinstance(value, (Array, ArrayRecord)):
        return _encoded_variables(value, arrays)
    for kind, record in _RECORDS.items():
        if isinstance(value, record):
            return {kind: encoded(dict(value), arrays, depth + 1)}
    for kind, sequence in _SEQUENCES.items():
        if type(value) is sequence:
            items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
            return {kind: [encoded(item, arrays, depth + 1) for item in items]}
    if type(value) is dict:
        return {
            "dict": [[encoded(key, arrays, depth + 1), encoded(item, arrays, depth + 1)] for key, item in value.items()]
        }
    return _encoded_generator(value, arrays)


def _encoded_variables(value: Array | ArrayRecord, arrays: Arrays) -> dict[str, Any]:
    if isinstance(value, Array):
        return {"variable": arrays.key_of(value.numpy())}
    return {"variables": [[name, arrays.key_of(array.numpy())] for name, array in value.items()]}


def _encoded_generator(value: Any, arrays: Arrays) -> dict[str, Any]:
    if not isinstance(value, HostGenerator):
        kind = type(value)
        raise NotPlain(f"a value of {kind.__module__}.{kind.__qualname__}")
    kind, state = generator_state(value)
    return {_GENERATORS.get(kind, "generator"): encoded(state, arrays)}


def decoded(plain: Any, arrays: Mapping[str, np.ndarray], present: Any = None) -> Any:
    """Return the value that was encoded.

    Args:
        plain: What `encoded` returned.
        arrays: The arrays that it added.
        present: What is there now; generators of random numbers are set, not replaced.
    """
    if not isinstance(plain, dict):
        return plain
    ((kind, held),) = plain.items()
    if kind == "dict":
        return {decoded(key, arrays): decoded(item, arrays) for key, item in held}
    if kind in _SEQUENCES:
        return _SEQUENCES[kind](decoded(item, arrays) for item in held)
    if kind in _RECORDS:
        return _RECORDS[kind](decoded(held, arrays))
    if kind == "variables":
        return ArrayRecord({name: Array(arrays[key]) for name, key in held})
    if kind == "float":
        return float(held)
    if kind in ("array", "scalar", "bytes", "variable"):
        array = np.array(arrays[held])
        if kind == "array":
            return array
        return Array(array) if kind == "variable" else array[()] if kind == "scalar" else array.tobytes()
    return _decoded_generator(kind, decoded(held, arrays), present)


def _decoded_generator(name: str, state: Any, present: Any) -> HostGenerator:
    if name not in ("generator", *_GENERATORS.values()):
        raise ValueError(f"{name!r} is not a kind of value that is stored")
    kinds = [kind for kind, stored in _GENERATORS.items() if stored == name]
    kind = kinds[0] if kinds else state["bit_generator"]
    return present if set_generator_state(present, kind, state) else made_generator(kind, state)


def opaque_owner(value: Any) -> str | None:
    """Return the library that an object belongs to whose attributes are not looked into; else `None`."""
    library = type(value).__module__.split(".")[0]
    return library if library in _FOREIGN else None
