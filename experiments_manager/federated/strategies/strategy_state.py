"""What a strategy keeps from round to round, as what JSON can hold with arrays beside it, and back; without pickle.

Unlike the state of a run (`training/state/plain_state.py`) it is a difference: what a strategy that is built anew from
the same settings has by itself is not in it, so that options may be others after a resume.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp.strategy import Strategy

from experiments_manager.common.generators import (
    HostGenerator,
    generator_state,
    made_generator,
    set_generator_state,
)
from experiments_manager.federated.errors import FederationError

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


class InitialStrategy:
    """A strategy as it was built: what did not change since is a setting, or follows from one, and is not state."""

    def __init__(self, strategy: Strategy) -> None:
        self._values: dict[str, Any] = {}
        self._objects: dict[str, tuple[Any, list[int]]] = {}
        self._note("", strategy, set())

    def _note(self, path: str, owner: Any, seen: set[int]) -> None:
        seen.add(id(owner))
        for name, value in vars(owner).items():
            where = f"{path}.{name}"
            self._objects[where] = value, _items(value)
            arrays = Arrays(where.lstrip("."))
            try:
                self._values[where] = (encoded(value, arrays), arrays)
            except NotPlain:
                if _has_attributes(value) and not hasattr(value, "state_dict") and id(value) not in seen:
                    self._note(where, value, seen)

    def has(self, where: str, plain: Any, arrays: Arrays) -> bool:
        """Return whether an attribute had this value."""
        if where not in self._values:
            return False
        before, arrays_before = self._values[where]
        return before == plain and arrays_before == arrays

    def is_object(self, where: str, value: Any) -> bool:
        """Return whether an attribute was this very object, which a strategy that is built anew has by itself."""
        before, items = self._objects.get(where, (None, []))
        return before is value and items == _items(value)


def _items(value: Any) -> list[int]:
    """Return which objects a container holds."""
    if isinstance(value, dict):
        return [id(item) for pair in value.items() for item in pair]
    return [id(item) for item in value] if isinstance(value, (list, tuple, set)) else []


def state_of(
    strategy: Strategy, beginning: InitialStrategy | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what a strategy keeps, as what JSON can hold and as arrays by their key in it.

    Attributes of the strategy, of strategies in it and of objects in it are taken as they are: numbers, strings, lists,
    tuples, sets, dictionaries, arrays, records of Flower, random generators, and whatever has `state_dict` and
    `load_state_dict`. Functions and objects that were there from the beginning are not stored: a strategy that is
    built from the same settings has them.

    Args:
        strategy: Any strategy.
        beginning: The strategy when it was built; only what changed since is stored then, so that options may be others
            after a resume.

    Raises:
        FederationError: It keeps something that cannot be stored.
    """
    arrays: dict[str, np.ndarray] = {}
    return {"strategy": _object_state("", strategy, beginning, arrays, [])}, arrays


def _object_state(
    path: str, owner: Any, beginning: InitialStrategy | None, arrays: dict[str, np.ndarray], owners: list[int]
) -> dict[str, Any]:
    attributes = {}
    for name, value in vars(owner).items():
        where = f"{path}.{name}"
        own = Arrays(where.lstrip("."))
        try:
            plain = encoded(value, own)
        except NotPlain as problem:
            kept = _kept_object(where, value, beginning, arrays, [*owners, id(owner)], problem)
            if kept is not None:
                attributes[name] = kept
            continue
        if beginning is None or not beginning.has(where, plain, own):
            attributes[name] = plain
            arrays.update(own)
    return {"object": type(owner).__name__, "attributes": attributes}


def _kept_object(
    where: str,
    value: Any,
    beginning: InitialStrategy | None,
    arrays: dict[str, np.ndarray],
    owners: list[int],
    problem: NotPlain,
) -> dict[str, Any] | None:
    same = beginning is None or beginning.is_object(where, value)
    if same and hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
        own = Arrays(where.lstrip("."))
        try:
            plain = encoded(value.state_dict(), own)
        except NotPlain as inner:
            raise _not_stored(where, inner) from inner
        arrays.update(own)
        return {"loaded": plain}
    if same and _has_attributes(value) and id(value) not in owners:
        return _object_state(where, value, beginning, arrays, owners)
    if same and (beginning is not None or callable(value)):
        return None
    raise _not_stored(where, problem)


def _not_stored(where: str, problem: NotPlain) -> FederationError:
    return FederationError(
        f"The strategy keeps something that cannot be stored, so the federation could not be resumed: "
        f"{where.lstrip('.')} holds {problem}. Expected numbers, strings, lists, dictionaries or NumPy arrays. "
        "Keep it in one of these, or make it when the strategy is built."
    )


def _has_attributes(value: Any) -> bool:
    """Tell objects whose attributes are state from functions, classes, modules and what belongs to other libraries."""
    return isinstance(value, Strategy) or (
        hasattr(value, "__dict__") and not callable(value) and opaque_owner(value) is None
    )


def restore(strategy: Strategy, plain: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Give a strategy that was built from the same settings what `state_of` returned.

    Raises:
        FederationError: The state is that of another strategy.
    """
    try:
        _restore_object("the strategy", strategy, plain["strategy"], arrays)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FederationError(
            f"The state of the strategy cannot be read: {error!r}. Expected what was stored by this release. "
            "Start the federation anew, or resume it with the release that it was started with."
        ) from error


def _restore_object(where: str, owner: Any, plain: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    if plain["object"] != type(owner).__name__:
        raise FederationError(
            f"The state that was stored is not that of {where}. Expected {type(owner).__name__}, got "
            f"{plain['object']}. Resume the federation with the strategy that it was started with, or start it anew."
        )
    for name, value in plain["attributes"].items():
        if isinstance(value, dict) and "object" in value:
            _restore_object(name, getattr(owner, name), value, arrays)
        elif isinstance(value, dict) and "loaded" in value:
            getattr(owner, name).load_state_dict(decoded(value["loaded"], arrays))
        else:
            setattr(owner, name, decoded(value, arrays, getattr(owner, name, None)))
