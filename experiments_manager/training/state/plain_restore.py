"""Puts back what `plain_state.py` wrote, without running anything that a file says.

A file can name a class, but only one that is loaded already, and none of its code is called: its attributes are set.
What exists already is changed rather than replaced: a list, a random generator or an object that others hold too
stays the one that they hold.
"""

from __future__ import annotations

import base64
import collections
import datetime
import enum
import pathlib
import sys
import types
import zoneinfo
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from experiments_manager.common.generators import (
    HostGenerator,
    advance_spawning,
    made_generator,
    set_generator_state,
)
from experiments_manager.training.state.plain_state import (
    ARRAYS,
    FACTORIES,
    ITERATORS,
    MADE,
    MAPPINGS,
    NotSerializableError,
    base_kind,
    can_be_made,
    held_kind,
    variables_of,
)
from experiments_manager.training.state.plain_values import BY_TEXT, PATHS, class_name


def _replace(held: Any, content: Any) -> None:
    held.clear()
    held.update(content)


def _fill_table(table: Any, content: Any) -> None:
    table.remove(table.export()[0])
    table.insert(*map(tf.constant, content))


def _spawn(held: Any, content: Any) -> None:
    if not advance_spawning(held, *content):
        raise NotSerializableError("has spawned more than it had then")


_WRITERS: dict[str, Callable[[Any, Any], None]] = {
    "context": lambda held, content: [held.set(value) for value in content],
    "thread": lambda held, content: _replace(vars(held), content),
    "weak": _replace,
    "weak set": _replace,
    "table": _fill_table,
    "array": lambda held, content: held.__setitem__(slice(None), type(held)(held.typecode, content)),
    "bytes": lambda held, content: held.__setitem__(slice(None), content),
    "seeds": _spawn,
}
"""How what one of `HELD` holds is put back."""


class Unpacker:
    """Turns back what a `Packer` gave, in the same order."""

    def __init__(self, tensors: Mapping[str, tf.Tensor], objects: Mapping[str, Any] | None = None) -> None:
        """Begin.

        Args:
            tensors: Of the packer.
            objects: What the packer knew, by name. What has no name is made anew then, whatever is in its place.
        """
        self._tensors, self._objects = tensors, objects
        self._seen: list[Any] = []

    def put(self, value: Any, live: Any) -> None:
        """Put back into an object what `Packer.content` gave of it.

        Raises:
            NotSerializableError: As `unpack`, or if it cannot hold that.
        """
        found = self.unpack(value, live)
        if found is live:
            return
        if not isinstance(live, np.ndarray) or (live.shape, live.dtype) != (found.shape, found.dtype):
            raise NotSerializableError("is not what it was")
        live[...] = found

    def _before(self, parts: Any) -> Any:
        """Return what was in the places of the parts, to be changed; nothing where that has names of its own."""
        return parts if self._objects is None else type(parts)()

    def unpack(self, value: Any, live: Any = None) -> Any:
        """Return the value.

        Args:
            value: From `Packer.pack`.
            live: What is in its place now; it is changed rather than replaced where that can be.

        Raises:
            NotSerializableError: If a class is not there any more, or what can only be put back in place has no place.
        """
        if isinstance(value, list):
            return self._list(value, live)
        if not isinstance(value, dict):
            return value
        tag = next((key for key in value if key.startswith("__")), None)
        if tag is None or tag == "__dict__":
            return self._dict(value, live, tag)
        return self._attribute(value, live) if tag == "__at__" else getattr(self, f"_{tag.strip('_')}")(value, live)

    def _remember(self, found: Any) -> Any:
        self._seen.append(found)
        return found

    def _attribute(self, value: dict, live: Any) -> Any:
        self._seen[value["__at__"] :] = [None] * max(0, value["__at__"] - len(self._seen))  # after one that failed
        return self.unpack(value["value"], live)

    def _list(self, value: list, live: Any) -> list:
        found = self._remember(live if base_kind(type(live)) is list else [])
        before = self._before(list(found))
        items = [self.unpack(item, _at(before, number)) for number, item in enumerate(value)]
        list.__setitem__(found, slice(None), items)  # not Keras', which would track them again
        return found

    def _dict(self, value: dict, live: Any, tag: str | None) -> Any:
        kind = MAPPINGS.get(value.get("kind", "dict"), dict) if tag else dict
        if tag and value["kind"] == "defaultdict":
            factory = FACTORIES.get(value["factory"] or "", getattr(live, "default_factory", None))
            found = live if base_kind(type(live)) is collections.defaultdict else collections.defaultdict(factory)
        else:
            found = live if base_kind(type(live)) is kind else kind()
        self._remember(found)
        before = self._before(dict(found))
        own = collections.OrderedDict if isinstance(found, collections.OrderedDict) else dict
        own.clear(found)  # not Keras', which would forget what it tracks
        for key, item in value["__dict__"] if tag else value.items():
            key = self.unpack(key) if tag else key
            own.__setitem__(found, key, self.unpack(item, before.get(key)))
        return found

    def _tuple(self, value: dict, live: Any) -> tuple:
        return tuple(self.unpack(item, _at(live, number)) for number, item in enumerate(value["__tuple__"]))

    def _named(self, value: dict, live: Any) -> tuple:
        place = len(self._seen)
        self._remember(None)
        kind = _class_named(value["__named__"], live)
        if not (issubclass(kind, tuple) and hasattr(kind, "_fields")):
            raise NotSerializableError(f"{value['__named__']} is no named tuple")
        items = [self.unpack(item, _at(live, number)) for number, item in enumerate(value["items"])]
        self._seen[place] = tuple.__new__(kind, items)
        return self._seen[place]

    def _set(self, value: dict, live: Any) -> set | frozenset:
        if value["kind"] == "frozenset":
            return frozenset(self.unpack(item) for item in value["__set__"])
        found = self._remember(live if base_kind(type(live)) is set else set())
        set.clear(found)
        set.update(found, [self.unpack(item) for item in value["__set__"]])
        return found

    def _deque(self, value: dict, live: Any) -> collections.deque:
        fits = base_kind(type(live)) is collections.deque and live.maxlen == value["most"]
        found = self._remember(live if fits else collections.deque(maxlen=value["most"]))
        before = self._before(list(found))
        found.clear()
        found.extend(self.unpack(item, _at(before, number)) for number, item in enumerate(value["__deque__"]))
        return found

    def _random(self, value: dict, live: Any) -> HostGenerator:
        place = len(self._seen)
        self._remember(None)
        state = self.unpack(value["state"])
        found = live if set_generator_state(live, value["__random__"], state) else None
        self._seen[place] = made_generator(value["__random__"], state) if found is None else found
        return self._seen[place]

    def _variables(self, value: dict, live: Any) -> Any:
        self._remember(live)
        variables, names = variables_of(live), value["__variables__"]
        if len(variables) != len(names):
            raise NotSerializableError("has other variables than before")
        for variable, name in zip(variables, names, strict=True):
            variable.assign(self._tensors[name])
        return live

    def _object(self, value: dict, live: Any) -> Any:
        kind = _class_named(value["__object__"], live)
        if not can_be_made(kind):
            raise NotSerializableError(f"{value['__object__']} is no longer a plain class")
        new = types.SimpleNamespace.__new__ if issubclass(kind, types.SimpleNamespace) else object.__new__
        found = self._remember(live if type(live) is kind else new(kind))
        for name, item in value["state"].items():
            object.__setattr__(found, name, self.unpack(item, getattr(live, name, None)))
        return found

    def _live(self, value: dict, live: Any) -> Any:
        if live is None:
            raise NotSerializableError("a part of it no longer exists")
        return live

    def _ref(self, value: dict, live: Any) -> Any:
        if self._objects is None or value["__ref__"] not in self._objects:
            raise NotSerializableError(f"there is no {value['__ref__']}")
        return self._objects[value["__ref__"]]

    def _id(self, value: dict, live: Any) -> int:
        return id(self._ref({"__ref__": value["__id__"]}, live))

    def _held(self, value: dict, live: Any) -> Any:
        place, kind = len(self._seen), value["__held__"]
        self._remember(live)
        content = self.unpack(value["content"])
        if held_kind(live) == kind:
            _WRITERS[kind](live, content)
        elif kind in MADE:
            self._seen[place] = MADE[kind](value, content)
        else:
            raise NotSerializableError("is not what it was")
        return self._seen[place]

    def _method(self, value: dict, live: Any) -> Any:
        found, name = self.unpack(value["of"]), value["__method__"]
        if self._objects is None or not isinstance(getattr(type(found), name, None), types.FunctionType):
            raise NotSerializableError(f"there is no method {name}")
        return types.MethodType(getattr(type(found), name), found)

    def _iterator(self, value: dict, live: Any) -> Any:
        place = len(self._seen)
        self._remember(None)
        if value["__iterator__"] not in ITERATORS:
            raise NotSerializableError(f"{value['__iterator__']} is no iterator of Python's")
        found = ITERATORS[value["__iterator__"]](*[self.unpack(item) for item in value["args"]])
        if "state" in value:
            found.__setstate__(self.unpack(value["state"]))
        self._seen[place] = found
        return found

    def _same(self, value: dict, live: Any) -> Any:
        return self._seen[value["__same__"]]

    def _tensor(self, value: dict, live: Any) -> np.ndarray:
        return self._as_it_lay(value, np.array(self._tensors[value["__tensor__"]].numpy()))

    def _eager(self, value: dict, live: Any) -> tf.Tensor:
        return tf.convert_to_tensor(self._tensors[value["__eager__"]])

    def _array(self, value: dict, live: Any) -> Any:
        array = np.asarray(value["__array__"], value["dtype"])
        return array[()] if value["scalar"] else self._as_it_lay(value, array)

    def _raw(self, value: dict, live: Any) -> Any:
        data, dtype = base64.b64decode(value["__raw__"]), _read_dtype(value["dtype"])
        array = np.frombuffer(data, dtype).reshape(value["shape"]).copy()
        return array[()] if value["scalar"] else self._as_it_lay(value, array)

    def _as_it_lay(self, value: dict, array: np.ndarray) -> np.ndarray:
        """Turn the axes of an array to what they were in the memory, and take note of one that others may hold too."""
        array = array.transpose(np.argsort(value["axes"])) if "axes" in value else array
        return self._remember(array.view(ARRAYS[value["own"]])) if "own" in value else array

    def _view(self, value: dict, live: Any) -> np.ndarray:
        place = len(self._seen)
        self._remember(None)
        base, (offset, shape, strides) = self.unpack(value["__view__"]), value["place"]
        if not isinstance(base, np.ndarray):
            raise NotSerializableError("is a part of what is no array any more")
        flat = base.ravel(order="K")
        self._seen[place] = np.ndarray(shape, _read_dtype(value["dtype"]), flat, offset, strides)
        return self._seen[place]

    def _complex(self, value: dict, live: Any) -> complex:
        return complex(*value["__complex__"])

    def _timedelta(self, value: dict, live: Any) -> datetime.timedelta:
        return datetime.timedelta(*value["__timedelta__"])

    def _range(self, value: dict, live: Any) -> range | slice:
        return (range if value["kind"] == "range" else slice)(*value["__range__"])

    def _text(self, value: dict, live: Any) -> Any:
        return BY_TEXT[value["__text__"]][2](value["value"])

    def _enum(self, value: dict, live: Any) -> enum.Enum:
        kind = _class_named(value["__enum__"], live)
        if not issubclass(kind, enum.Enum):
            raise NotSerializableError(f"{value['__enum__']} is no enumeration")
        return kind(value["value"]) if value["name"] is None else kind[value["name"]]

    def _path(self, value: dict, live: Any) -> pathlib.PurePath:
        return PATHS[value["kind"]](value["__path__"])

    def _zoned(self, value: dict, live: Any) -> datetime.datetime | datetime.time:
        kind = datetime.datetime if value["kind"] == "datetime" else datetime.time
        found = kind.fromisoformat(value["__zoned__"]).replace(fold=value["fold"])
        return found if value["zone"] is None else found.replace(tzinfo=zoneinfo.ZoneInfo(value["zone"]))


def _read_dtype(written: Any) -> np.dtype:
    return np.dtype([tuple(field) for field in written] if isinstance(written, list) else written)


def _at(live: Any, number: int) -> Any:
    return live[number] if isinstance(live, list | tuple) and number < len(live) else None


def _class_named(name: str, live: Any) -> type:
    """Find a class among the modules that are loaded; none is imported."""
    if class_name(type(live)) == name:
        return type(live)
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        raise NotSerializableError(f"there is no class {name}")
    return found
