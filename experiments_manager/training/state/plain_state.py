"""Values of the user's as plain data (JSON and tensors), which `plain_restore.py` turns back.

This is no pickle: what is written are values, and of objects the name of their class and their attributes. What cannot
be written in this way is named.
"""

from __future__ import annotations

import argparse
import array
import base64
import collections
import collections.abc
import contextvars
import dataclasses
import itertools
import random
import sys
import threading
import types
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments_manager.common.generators import HostGenerator, generator_state
from experiments_manager.compat.keras import CALLBACK_ATTRIBUTES
from experiments_manager.compat.python import can_be_filled_again
from experiments_manager.training.state.plain_values import class_name, is_users, simple_value

SMALL = 64
"""Elements up to which an array is written as text."""
_WIDEST = 8
"""Bytes of a number up to which JSON and TensorFlow hold all of it."""
_MOST_AROUND = 4
"""How many times as large as a part of it an array may be that is written for the part's sake."""
_DEEPEST = 100
_LEAST_ID = 2**32
"""A number above it that is the `id` of a known object is meant as that."""
LIVE = {"__live__": 1}
"""Stands for what is in that place anyway."""
# Keras' callbacks turn the sign of their `min_delta` when they first look at an epoch, so it must be as it was given.
NOT_STATE = (*CALLBACK_ATTRIBUTES, "min_delta")
"""Attributes of callbacks that are no state."""
MAPPINGS = {kind.__name__: kind for kind in (dict, collections.OrderedDict, collections.Counter)}
CONTAINERS = (collections.OrderedDict, collections.Counter, collections.defaultdict, dict, list, set, collections.deque)
"""Containers that are put back in place, the narrower ones first."""
FACTORIES = {kind.__name__: kind for kind in (int, float, str, bool, list, dict, set, tuple, collections.deque)}
ITERATORS: dict[str, Callable[..., Any]] = {
    kind.__name__: kind
    for kind in (iter, enumerate, reversed, zip, itertools.chain, itertools.count, itertools.cycle, itertools.islice,
                 itertools.repeat, itertools.accumulate, itertools.compress, itertools.product, itertools.permutations,
                 itertools.combinations, itertools.combinations_with_replacement, itertools.zip_longest)
}  # fmt: skip
"""What Python's own iterators are made by; what else they call, as `map` does, is not among them."""
BY_ATTRIBUTES = (types.SimpleNamespace, argparse.Namespace, collections.UserDict, collections.UserList,
                 collections.ChainMap)  # fmt: skip
"""Classes of Python's whose objects are their attributes."""
ARRAYS = {kind.__name__: kind for kind in (np.ndarray, np.matrix, np.recarray)}
"""Kinds of arrays that are made again; others are put back in place."""
_TABLES = (tf.lookup.experimental.MutableHashTable, tf.lookup.experimental.DenseHashTable)
HELD: dict[str, tuple[type | tuple[type, ...], Callable[[Any], Any]]] = {
    "context": (contextvars.ContextVar, lambda held: [held.get()] if held in contextvars.copy_context() else []),
    "thread": (threading.local, lambda held: dict(vars(held))),
    "weak": ((weakref.WeakKeyDictionary, weakref.WeakValueDictionary), dict),
    "weak set": (weakref.WeakSet, set),
    "table": (_TABLES, lambda held: _sorted_table(held)),
    "array": (array.array, lambda held: held.tolist()),
    "bytes": (bytearray, bytes),
    "seeds": (np.random.SeedSequence, lambda held: [held.n_children_spawned]),
}
"""Objects that are changed in place, by what they are, and how what they hold is read."""
MADE: dict[str, Callable[[dict[str, Any], Any], Any]] = {
    "array": lambda packed, content: array.array(packed["code"], content),
    "bytes": lambda packed, content: bytearray(content),
}
"""Those of them that are made again where there is none in their place."""
_BASES_ALONE = ("abc", "typing", "collections.abc", "_collections_abc")
_LIBRARIES = ("keras", "tensorflow", "experiments_manager", "logging", "threading", "_thread", "_io", "_csv", "re",
              "functools")  # fmt: skip
"""Rooms whose objects do not change by themselves in the course of a training, as far as they hold no variables."""


STATE_OF_THEIR_OWN = (
    collections.abc.Iterator,
    keras.callbacks.Callback,
    random.Random,
    np.random.Generator,
    np.random.RandomState,
    tf.RaggedTensor,
    tf.SparseTensor,
    tf.TensorArray,
    tf.queue.QueueBase,
    *_TABLES,
)
"""Objects that hold what no variable shows."""


class NotSerializableError(Exception):
    """A value cannot be written; the text names its type."""


class TracedValueError(NotSerializableError):
    """A value holds tensors of a graph, which each trace makes anew: it is no state."""


class Packer:
    """Turns values into JSON; one packer for all that belong together, so that what is shared stays shared."""

    def __init__(
        self,
        prefix: str,
        in_state: Callable[[Any], bool] = lambda value: False,
        known: Mapping[int, str] | None = None,
    ) -> None:
        """Begin.

        Args:
            prefix: Of the names of tensors.
            in_state: Says of an object with variables whether these are written elsewhere.
            known: Names of objects, by `id`, that another process has too. They are referred to by these names, and
                what they hold is written by `content`. Without it, what has no form is taken to be in its place anyway.
        """
        self.tensors: dict[str, tf.Tensor] = {}
        self.loses_order = False
        """Whether something was packed that held a set which cannot be filled again as it is."""
        self._prefix, self._in_state, self._known = prefix, in_state, known
        self._numbers: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no other object gets the id of one that was seen

    def attribute(self, value: Any) -> Any:
        """Pack a whole value, or leave no trace of it.

        Raises:
            NotSerializableError: As `pack`.
        """
        packed = self._traceless(self.pack, value)
        has_parts = isinstance(packed["value"], dict | list) and packed["value"] != LIVE
        return packed if has_parts else packed["value"]

    def _traceless(self, pack: Callable[[Any], Any], value: Any) -> dict[str, Any]:
        number = len(self._numbers)
        try:
            return {"__at__": number, "value": pack(value)}
        except BaseException:
            for key in list(self._numbers)[number:]:
                del self._numbers[key]
            raise

    def pack(self, value: Any, depth: int = 0) -> Any:
        """Return JSON that an `Unpacker` turns back.

        Raises:
            NotSerializableError: If something in the value has a state that cannot be written.
        """
        if depth > _DEEPEST:
            raise NotSerializableError("is nested too deeply")
        if type(value) is int and value > _LEAST_ID and self._known and value in self._known:
            return {"__id__": self._known[value]}
        simple = simple_value(value)
        if simple is not NotImplemented:
            return simple
        if self._known is not None and id(value) in self._known:
            return {"__ref__": self._known[id(value)]}
        if isinstance(value, np.generic):
            return self._array(value)
        if isinstance(value, np.ndarray) and id(value) not in self._numbers:
            return self._numbered(value, depth)
        if isinstance(value, tf.Tensor):
            if tf.is_symbolic_tensor(value):
                raise TracedValueError("holds a tensor of a graph")
            return {"__eager__": self._tensor(value)}
        if self._known is not None and is_method(value):
            return {"__method__": value.__name__, "of": self.pack(value.__self__, depth + 1)}
        if self._stays(value):
            if self._known is not None and (depth or callable(value)):
                raise NotSerializableError(f"is a {described(value)} that came while training ran")
            return dict(LIVE)
        if id(value) in self._numbers:
            return {"__same__": self._numbers[id(value)]}
        if held_kind(value) not in (None, *MADE):
            raise NotSerializableError(f"is a {described(value)} that came while training ran")
        if base_kind(type(value)) is not type(value) and is_users(type(value)):
            raise NotSerializableError(f"is a {type(value).__name__}")
        return self._numbered(value, depth)

    def content(self, value: Any) -> Any:
        """Pack what an object holds that is known by its name, for `Unpacker.put`.

        Raises:
            NotSerializableError: As `pack`.
        """
        is_array = isinstance(value, np.ndarray)
        return self._traceless(self._array if is_array else lambda held: self._numbered(held, 0), value)

    def _numbered(self, value: Any, depth: int) -> Any:
        if not isinstance(value, tuple | frozenset) or hasattr(value, "_fields"):
            self._numbers[id(value)] = len(self._numbers)
            self._kept.append(value)
        return self._several(value, depth + 1)

    def _several(self, value: Any, depth: int) -> Any:
        if held := held_kind(value):
            code = {"code": value.typecode} if held == "array" else {}
            return {"__held__": held, "content": self.pack(held_by(value), depth)} | code
        if isinstance(value, np.ndarray):
            if type(value) not in ARRAYS.values():
                raise NotSerializableError(f"is a {described(value)}")
            return (
                self._view(value, depth) if self._is_view(value) else self._array(value) | {"own": type(value).__name__}
            )
        if isinstance(value, Mapping) and not isinstance(value, BY_ATTRIBUTES):
            return self._mapping(value, depth)
        kind = base_kind(type(value))
        if kind is list:
            return [self.pack(item, depth) for item in value]
        if kind is tuple:
            return {"__tuple__": [self.pack(item, depth) for item in value]}
        if kind in (set, frozenset):
            of_texts = any(
                isinstance(item, str | bytes) for item in value
            )  # each process gives them an order of its own
            self.loses_order |= kind is set and not of_texts and not can_be_filled_again(value)
            return {"__set__": [self.pack(item, depth) for item in value], "kind": kind.__name__}
        if kind is collections.deque:
            return {"__deque__": [self.pack(item, depth) for item in value], "most": value.maxlen}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return {"__named__": class_name(kind), "items": [self.pack(item, depth) for item in value]}
        if isinstance(value, HostGenerator):
            name, state = generator_state(value)
            return {"__random__": name, "state": self.pack(state, depth)}
        variables = variables_of(value)
        if variables and self._known is not None and all(map(self._in_state, variables)):
            return dict(LIVE)
        if variables:
            return {"__variables__": [self._tensor(tf.identity(part)) for part in variables]}
        return self._object(value, depth)

    def _stays(self, value: Any) -> bool:
        """Return whether it is no state: what is in its place in another process is just as good."""
        kind = type(value)
        if base_kind(kind) is not kind:
            return False
        if kind is object or isinstance(value, type(sys) | type):
            return True
        if isinstance(value, STATE_OF_THEIR_OWN):
            return hasattr(value, "fileno")
        variables = variables_of(value)
        if variables:
            return all(map(self._in_state, variables))
        return (callable(value) and not is_users(kind)) or kind.__module__.partition(".")[0] in _LIBRARIES

    def _mapping(self, value: Mapping, depth: int) -> Any:
        kind = base_kind(type(value))
        plain = kind is dict and all(type(key) is str and not key.startswith("__") for key in value)
        if plain:
            return {key: self.pack(item, depth) for key, item in value.items()}
        name, factory = kind.__name__, None
        if kind is collections.defaultdict:
            factory = value.default_factory.__name__ if value.default_factory in FACTORIES.values() else None
        elif kind not in MAPPINGS.values():
            raise NotSerializableError(f"is a {name}")
        items = [[self.pack(key, depth), self.pack(item, depth)] for key, item in value.items()]
        return {"__dict__": items, "kind": name, "factory": factory}

    def _object(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if isinstance(value, collections.abc.Iterator) and not hasattr(value, "fileno"):
            return self._iterator(value, depth)
        if not can_be_made(kind):
            raise NotSerializableError(f"is a {kind.__module__}.{kind.__qualname__}")
        return {"__object__": class_name(kind), "state": {k: self.pack(v, depth) for k, v in attributes(value)}}

    def _iterator(self, value: Any, depth: int) -> Any:
        """Pack one of Python's own iterators as what makes it again, and where it is in that."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12 and 3.13
                make, args, *state = value.__reduce__()
        except (TypeError, AttributeError):
            make, args, state = None, (), []
        name = getattr(make, "__name__", "")
        if make is None or ITERATORS.get(name) is not make:
            raise NotSerializableError(f"is an iterator ({type(value).__name__}), whose place cannot be read")
        packed = {"__iterator__": name, "args": [self.pack(item, depth) for item in args]}
        return packed | ({"state": self.pack(state[0], depth)} if state else {})

    def _is_view(self, value: np.ndarray) -> bool:
        """Return whether an array is to be written as a part of another one, in which what is changed is seen."""
        base = value.base
        if type(value) is not np.ndarray or type(base) is not np.ndarray or value.dtype.hasobject:
            return False
        is_held = id(base) in self._numbers or (self._known is not None and id(base) in self._known)
        is_flat = np.may_share_memory(base.ravel(order="K"), base)
        return is_flat and not base.dtype.hasobject and (is_held or base.nbytes <= _MOST_AROUND * value.nbytes)

    def _view(self, value: np.ndarray, depth: int) -> Any:
        offset = value.__array_interface__["data"][0] - value.base.__array_interface__["data"][0]
        place = [offset, list(value.shape), list(value.strides)]
        return {"__view__": self.pack(value.base, depth), "place": place, "dtype": _written_dtype(value.dtype)}

    def _array(self, value: np.ndarray | np.generic) -> Any:
        if isinstance(value, np.ma.MaskedArray):
            raise NotSerializableError("is a masked array")
        array, scalar = np.asarray(value), isinstance(value, np.generic)
        # In which order numbers are added up depends on how they lie in the memory, and the last bit of a sum on that.
        axes = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
        is_turned = not array.flags.c_contiguous and array.transpose(axes).flags.c_contiguous
        array, turned = (array.transpose(axes), {"axes": axes}) if is_turned else (array, {})
        if array.dtype.kind in "fiub" and array.dtype.itemsize <= _WIDEST and array.dtype.isnative:
            if array.size > SMALL:
                return {"__tensor__": self._large(array)} | turned
            return {"__array__": array.tolist(), "dtype": array.dtype.name, "scalar": scalar} | turned
        if array.dtype.hasobject or (array.dtype.kind == "V" and array.dtype.names is None):
            raise NotSerializableError(f"is an array of {array.dtype.name}")
        text = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
        dtype = _written_dtype(array.dtype)
        return {"__raw__": text, "dtype": dtype, "shape": list(array.shape), "scalar": scalar} | turned

    def _large(self, array: np.ndarray) -> str:
        return self._tensor(tf.constant(array))

    def _tensor(self, value: tf.Tensor) -> str:
        name = f"{self._prefix}{len(self.tensors):04d}"
        self.tensors[name] = value
        return name


def _written_dtype(dtype: np.dtype) -> Any:
    return dtype.descr if dtype.names else dtype.str


def variables_of(value: Any) -> list[Any]:
    """List the variables in which an object of TensorFlow's or Keras' keeps its state."""
    if isinstance(value, tf.Variable):
        return [value]
    if isinstance(value, keras.Variable):
        return [value.value]
    if isinstance(value, tf.random.Generator):
        return [value.state]
    if isinstance(value, keras.random.SeedGenerator):
        return [value.state.value]
    if isinstance(value, keras.layers.Layer | keras.metrics.Metric | keras.optimizers.Optimizer | tf.Module):
        return [getattr(part, "value", part) if isinstance(part, keras.Variable) else part for part in value.variables]
    return []


def held_kind(value: Any) -> str | None:
    """Return which of `HELD` a value is."""
    return next((name for name, (kinds, _) in HELD.items() if isinstance(value, kinds)), None)


def held_by(value: Any) -> Any:
    """Return what one of `HELD` holds."""
    return HELD[held_kind(value)][1](value)


def _sorted_table(table: Any) -> list[np.ndarray]:
    keys, values = (part.numpy() for part in table.export())
    order = sorted(range(len(keys)), key=lambda number: repr(keys[number]))
    return [keys[order], values[order]]


def base_kind(kind: type) -> type:
    """Return which container of Python's a class derives from: a list for Keras' `TrackedList`; else the class."""
    if kind in CONTAINERS:
        return kind
    return next((base for base in CONTAINERS if issubclass(kind, base)), kind)


def is_method(value: Any) -> bool:
    """Return whether it is a method of an object, as `object.name` gives it."""
    if not isinstance(value, types.MethodType) or isinstance(value.__self__, type | types.ModuleType):
        return False
    return getattr(type(value.__self__), value.__name__, None) is value.__func__


def described(value: Any) -> str:
    """Return what to call a value of which nothing else can be said: `function rate`, `keras.src.losses.Loss`."""
    name = getattr(value, "__qualname__", None)
    kind = type(value)
    return f"{kind.__name__} {name}" if isinstance(name, str) else f"{kind.__module__}.{kind.__qualname__}"


def is_plain_object(kind: type) -> bool:
    """Return whether its attributes are all of it: no base but `object` adds something that is not seen."""
    ours = all(base is object or is_users(base) or base.__module__ in ("abc", "typing") for base in kind.__mro__)
    usual = kind.__reduce_ex__ is object.__reduce_ex__ and kind.__reduce__ is object.__reduce__
    own = kind.__getstate__ is not object.__getstate__ and not dataclasses.is_dataclass(kind)  # theirs reads slots
    return ours and usual and not own


def attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """Return the attributes of an object, those in slots included."""
    slots = [
        _mangled(slot, kind) for kind in type(value).__mro__ for slot in _as_tuple(vars(kind).get("__slots__", ()))
    ]
    names = [*getattr(value, "__dict__", {}), *(name for name in slots if name not in ("__dict__", "__weakref__"))]
    left_out = NOT_STATE if isinstance(value, keras.callbacks.Callback) else ()
    yield from ((name, getattr(value, name)) for name in names if name not in left_out and hasattr(value, name))


def can_be_made(kind: type) -> bool:
    """Return whether its objects are their attributes: plain classes of the user's, callbacks within callbacks."""
    if issubclass(kind, BY_ATTRIBUTES):
        return kind in BY_ATTRIBUTES or all(map(is_known_whole, kind.__mro__))
    return (is_users(kind) and is_plain_object(kind)) or issubclass(kind, keras.callbacks.Callback)


def is_known_whole(base: type) -> bool:
    """Return whether a base of a class adds nothing but attributes."""
    return base is object or is_users(base) or base in BY_ATTRIBUTES or base.__module__ in _BASES_ALONE


def _mangled(name: str, kind: type) -> str:
    """Return how the class's own code knows a private name."""
    is_private = name.startswith("__") and not name.endswith("__") and kind.__name__.strip("_")
    return f"_{kind.__name__.lstrip('_')}{name}" if is_private else name


def _as_tuple(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)
