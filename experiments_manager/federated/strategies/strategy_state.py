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
    if isinstance(value, Array):
        return {"variable": arrays.key_of(value.numpy())}
    if isinstance(value, ArrayRecord):
        return {"variables": [[name, arrays.key_of(array.numpy())] for name, array in value.items()]}
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
    if isinstance(value, HostGenerator):
        kind, state = generator_state(value)
        return {_GENERATORS.get(kind, "generator"): encoded(state, arrays)}
    raise NotPlain(f"a value of {type(value).__module__}.{type(value).__qualname__}")


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


class StrategyMemory:
    """What a strategy keeps from round to round, apart from what it was built with, so options may change by a resume.

    Attributes of the strategy, of strategies in it and of objects in it are taken as they are: numbers, strings, lists,
    tuples, sets, dictionaries, arrays, records of Flower, random generators, and whatever has `state_dict` and
    `load_state_dict`. Functions and objects that were there from the beginning are not stored: a strategy that is
    built from the same settings has them.

    Args:
        strategy: A strategy that was just built.
    """

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self._first_values: dict[str, tuple[Any, Arrays]] = {}
        self._first_objects: dict[str, tuple[Any, list[int]]] = {}
        self._note("", strategy, set())

    def _note(self, path: str, owner: Any, seen: set[int]) -> None:
        """Take note of what the attributes of an object are when it is built."""
        seen.add(id(owner))
        for name, value in vars(owner).items():
            where = f"{path}.{name}"
            self._first_objects[where] = value, _items(value)
            arrays = Arrays(where.lstrip("."))
            try:
                self._first_values[where] = encoded(value, arrays), arrays
            except NotPlain:
                if _has_attributes(value) and not hasattr(value, "state_dict") and id(value) not in seen:
                    self._note(where, value, seen)

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return what the strategy keeps, as what JSON can hold and as arrays by their key in it.

        Raises:
            FederationError: It keeps something that cannot be stored.
        """
        arrays: dict[str, np.ndarray] = {}
        return {"strategy": self._object_state("", self._strategy, arrays, [])}, arrays

    def _object_state(self, path: str, owner: Any, arrays: dict[str, np.ndarray], owners: list[int]) -> dict[str, Any]:
        attributes = {}
        for name, value in vars(owner).items():
            where = f"{path}.{name}"
            own = Arrays(where.lstrip("."))
            try:
                plain = encoded(value, own)
            except NotPlain as problem:
                kept = self._kept_object(where, value, arrays, [*owners, id(owner)], problem)
                if kept is not None:
                    attributes[name] = kept
                continue
            if self._first_values.get(where) != (plain, own):
                attributes[name] = plain
                arrays.update(own)
        return {"object": type(owner).__name__, "attributes": attributes}

    def _kept_object(
        self, where: str, value: Any, arrays: dict[str, np.ndarray], owners: list[int], problem: NotPlain
    ) -> dict[str, Any] | None:
        """Return the state of an object that is no plain value; `None` where it has none."""
        first, items = self._first_objects.get(where, (None, []))
        if first is not value or items != _items(value):
            raise _not_stored(where, problem)
        if hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
            own = Arrays(where.lstrip("."))
            try:
                plain = encoded(value.state_dict(), own)
            except NotPlain as inner:
                raise _not_stored(where, inner) from inner
            arrays.update(own)
            return {"loaded": plain}
        if _has_attributes(value) and id(value) not in owners:
            return self._object_state(where, value, arrays, owners)
        return None

    def restore(self, plain: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Give the strategy what `state` returned for another one that was built from the same settings.

        Raises:
            FederationError: The state is that of another strategy.
        """
        try:
            _restore_object("the strategy", self._strategy, plain["strategy"], arrays)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FederationError(
                f"The state of the strategy cannot be read: {error!r}. Expected what was stored by this release. "
                "Start the federation anew, or resume it with the release that it was started with."
            ) from error


def _items(value: Any) -> list[int]:
    """Return which objects a container holds."""
    if isinstance(value, dict):
        return [id(item) for pair in value.items() for item in pair]
    return [id(item) for item in value] if isinstance(value, (list, tuple, set)) else []


def _has_attributes(value: Any) -> bool:
    """Tell objects whose attributes are state from functions, classes, modules and what belongs to other libraries."""
    library = type(value).__module__.split(".")[0]
    return isinstance(value, Strategy) or (
        hasattr(value, "__dict__") and not callable(value) and library not in _FOREIGN
    )


def _not_stored(where: str, problem: NotPlain) -> FederationError:
    return FederationError(
        f"The strategy keeps something that cannot be stored, so the federation could not be resumed: "
        f"{where.lstrip('.')} holds {problem}. Expected numbers, strings, lists, dictionaries or NumPy arrays. "
        "Keep it in one of these, or make it when the strategy is built."
    )


def _restore_object(where: str, owner: Any, plain: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
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
