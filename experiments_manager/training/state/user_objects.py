"""The user's objects: what is reachable from callbacks, model, data and modules, each by a name of its own.

The walk begins at named roots and follows attributes, class attributes, containers, closures, defaults, bound methods
and partial functions. It looks into what is the user's; of Keras' objects it sees the attributes that Keras' own code
never sets. The names, such as `callbacks[0].history` or `mysettings.served`, are the same in each process that builds
the same objects, so one process can say by them what another is to change.
"""

from __future__ import annotations

import collections
import dataclasses
import dis
import enum
import functools
import os
import queue
import sys
import sysconfig
import types
import weakref
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments_manager.common.generators import HostGenerator
from experiments_manager.training.state.plain_state import (
    BY_ATTRIBUTES,
    CONTAINERS,
    STATE_OF_THEIR_OWN,
    attributes,
    base_kind,
    held_by,
    held_kind,
    is_plain_object,
)
from experiments_manager.training.state.plain_values import is_users

MOST_ITEMS = 1000
"""Items up to which those of a container have names of their own; what a longer one holds is written with it."""
MOST_HOLDERS = 50_000
"""Objects that are looked into at most."""
_KERAS = (
    keras.layers.Layer,
    keras.callbacks.Callback,
    keras.metrics.Metric,
    keras.losses.Loss,
    keras.optimizers.Optimizer,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.initializers.Initializer,
    keras.regularizers.Regularizer,
    keras.constraints.Constraint,
    keras.utils.PyDataset,
    tf.Module,
)
"""What users attach attributes to, or derive classes from."""
_VALUES = (type(None), bool, int, float, complex, str, bytes, tf.DType, tf.TensorShape, np.generic, tf.Tensor, np.dtype)
_LIBRARY_FOLDERS = tuple(
    {os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {str(Path(tf.__file__).resolve().parents[1]) + os.sep}
)
_WITH_ATTRIBUTES = (*BY_ATTRIBUTES, queue.Queue)
"""Classes of Python's whose objects are their attributes."""
_STATELESS = ("keras", "tensorflow", "experiments_manager", "logging", "threading", "_thread", "_io", "_csv", "re",
              "functools", "weakref", "types", "typing", "builtins", "abc", "_abc", "operator", "enum",
              "dataclasses")  # fmt: skip
"""Rooms whose objects do not change by themselves in the course of a training, as far as they hold no variables."""


@dataclasses.dataclass(frozen=True)
class Slot:
    """A place that holds a value: an attribute, a global name, a variable of a closure; or all of a container."""

    path: str
    """Its name, e.g. `callbacks[0].history`."""
    holder: Any
    name: str | int | None
    """Attribute, global name, number of a closure's cell; `None`: all that the holder holds."""

    @classmethod
    def of(cls, path: str, holder: Any, name: str | int | None) -> Slot:
        """Make that of a part of a holder, given the name of the holder."""
        return cls(path if name is None else _path(path, holder, name), holder, name)

    @property
    def key(self) -> tuple[int, str | int | None]:
        """What tells it from others, whatever their names are."""
        return id(self.holder), self.name

    def set(self, value: Any) -> None:
        """Let it hold a value."""
        holder, name = self.holder, self.name
        if isinstance(name, int):
            holder.__closure__[name].cell_contents = value
        elif isinstance(holder, types.ModuleType):
            vars(holder)[name] = value
        elif isinstance(holder, type):
            type.__setattr__(holder, name, value)
        elif isinstance(holder, types.FunctionType):
            setattr(holder, name, value)
        else:
            object.__setattr__(holder, name, value)

    def remove(self) -> None:
        """Remove the value from where it is held, as if it had never been assigned."""
        if isinstance(self.name, int):
            del self.holder.__closure__[self.name].cell_contents
        elif isinstance(self.holder, types.ModuleType):
            vars(self.holder).pop(self.name, None)
        elif isinstance(self.holder, type):
            type.__delattr__(self.holder, self.name)
        else:
            object.__delattr__(self.holder, self.name)


class UserObjects:
    """All that is reachable from some roots.

    Args:
        roots: By name.
        modules: The user's.
        follow_globals: Whether what functions mention of the globals of their modules is reachable by them.
    """

    def __init__(
        self, roots: Mapping[str, Any], modules: Collection[types.ModuleType], *, follow_globals: bool = False
    ) -> None:
        self.objects: dict[str, Any] = {}
        """By name: whatever has an identity."""
        self.names: dict[int, str] = {}
        """The names by `id`."""
        self.holders: dict[str, Any] = {}
        """By name: objects whose parts are slots."""
        self.globals: set[tuple[int, str]] = set()
        """Global names that functions mention, as `id` of the module's dictionary and name."""
        self._modules = {id(vars(module)): module for module in modules}
        self._own_names = {module.__name__ for module in modules}
        self._follow_globals = follow_globals
        self._kinds: dict[str, type] = {}
        self._defined: dict[str, dict[str, Any]] = {}
        self._kept: list[Any] = []
        self._seen: set[int] = set()
        self._pending: collections.deque[tuple[str, Any, bool]] = collections.deque(
            (name, root, False) for name, root in roots.items()
        )
        self.unseen: dict[str, str] = {}
        """By name: what could not be looked at, and why."""
        while self._pending:
            path, value, of_keras = self._pending.popleft()
            if len(self.holders) > MOST_HOLDERS:
                self.unseen[path] = f"more than {MOST_HOLDERS} objects are reachable"
                break
            try:
                self._visit(path, value, of_keras)
            except Exception as error:  # whatever the code of others raises when it is asked for an attribute
                self.unseen[path] = str(error)

    def slots(self) -> Iterator[tuple[Slot, Any]]:
        """Yield all places that the holders have now, with their values; the holder itself for all that it holds."""
        for path, holder in self.holders.items():
            if not is_looked_into(holder) and not isinstance(holder, _WITH_PARTS):
                yield Slot(path, holder, None), holder
            if type(holder) is not self._kinds.get(path, type(holder)):
                yield Slot.of(path, holder, "__class__"), type(holder)
            for name, value in parts_of(holder):
                yield Slot.of(path, holder, name), value
            for name, value in self._redefined(path, holder):
                yield Slot.of(path, holder, name), value

    def _redefined(self, path: str, holder: Any) -> Iterator[tuple[str, Any]]:
        """Yield the methods and further definitions of a class that others have taken the place of."""
        defined = self._defined.get(path, {})
        for name, first in defined.items():
            value = vars(holder).get(name, first)
            if value is not first and not _is_class_attribute(name, value):
                yield name, value

    def keys(self) -> set[tuple[int, str | int | None]]:
        """Return the keys of all slots, those of the global names that functions mention included."""
        modules = {key: id(module) for key, module in self._modules.items()}
        mentioned = {(modules[owner], name) for owner, name in self.globals if owner in modules}
        return mentioned | {slot.key for slot, _ in self.slots()}

    def _visit(self, path: str, value: Any, of_keras: bool) -> None:
        if isinstance(value, _VALUES) or id(value) in self._seen:
            return
        if of_keras and base_kind(type(value)) in CONTAINERS:
            self._visit_items(path, value, of_keras=True)
            return
        self._seen.add(id(value))
        self._kept.append(value)
        if isinstance(value, types.MethodType):
            self._add(f"{path}.__self__", value.__self__)
            self._add(f"{path}.__func__", value.__func__)
            return
        if isinstance(value, tuple | frozenset):
            self._visit_items(path, value, of_keras=of_keras)
            return
        if isinstance(value, collections.abc.Iterator) and not hasattr(value, "fileno"):
            return  # written by where it is, which is no part of it that could be set
        self.objects[path], self.names[id(value)] = value, path
        if isinstance(value, functools.partial):
            self._visit_partial(path, value)
        elif isinstance(value, staticmethod | classmethod | functools.cached_property | property):
            self._visit_descriptor(path, value)
        elif isinstance(value, types.FunctionType):
            self._visit_function(path, value)
        elif isinstance(value, type):
            self._visit_class(path, value)
        elif isinstance(value, types.ModuleType):
            if id(vars(value)) in self._modules and not self._follow_globals:
                self._visit_parts(path, value)
        elif is_whole(value):
            self._visit_parts(path, value)
            self._visit_items(path, value)
        elif is_looked_into(value):
            self._kinds[path] = type(value)
            self._visit_parts(path, value)
            self._add(f"type({path})", type(value))
        else:
            self._visit_wrapped(path, value)

    def _add(self, path: str, value: Any, *, of_keras: bool = False) -> None:
        self._pending.append((path, value, of_keras))

    def _visit_items(self, path: str, value: Any, *, of_keras: bool = False) -> None:
        value = held_by(value) if held_kind(value) else value
        if isinstance(value, np.ndarray | HostGenerator | bytes) or len(value) > MOST_ITEMS:
            return
        if isinstance(value, Mapping):
            for key, item in value.items():
                if isinstance(key, str | int | float | bool | tuple | type(None)):
                    self._add(f"{path}[{key!r}]", item, of_keras=of_keras)
        elif not isinstance(value, set | frozenset):  # what has no order has no names
            for number, item in enumerate(value):
                self._add(f"{path}[{number}]", item, of_keras=of_keras)

    def _visit_parts(self, path: str, value: Any) -> None:
        self.holders[path] = value
        for name, part in parts_of(value):
            self._add(_path(path, value, name), part)
        if isinstance(value, _KERAS):  # what stands in Keras' own attributes may hold the user's
            for name, part in list(vars(value).items()):
                if isinstance(part, (*_KERAS, list, tuple, dict, types.FunctionType, types.MethodType)):
                    self._add(f"{path}.{name}", part, of_keras=True)

    def _visit_partial(self, path: str, value: functools.partial) -> None:
        self._add(f"{path}.func", value.func)
        self._add(f"{path}.args", value.args)
        self._add(f"{path}.keywords", value.keywords)

    def _visit_descriptor(self, path: str, value: Any) -> None:
        for name in ("__func__", "func", "fget", "fset", "fdel"):
            self._add(f"{path}.{name}", getattr(value, name, None))

    def _visit_function(self, path: str, function: types.FunctionType) -> None:
        own = self.is_own(function.__module__, function.__globals__.get("__file__"))
        if own:
            self._visit_parts(path, function)
            self._visit_globals(function)
        else:
            for number, cell in enumerate(function.__closure__ or ()):
                if (held := _held(cell)) is not _NOTHING:
                    self._add(f"{path}.<{number}>", held)
        self._add(f"{path}.__wrapped__", getattr(function, "__wrapped__", None))

    def _visit_globals(self, function: types.FunctionType) -> None:
        module = self._modules.get(id(function.__globals__))
        for name in names_in(function.__code__):
            if name in function.__globals__:
                self.globals.add((id(function.__globals__), name))
                if self._follow_globals and module is not None:
                    self._add(f"{module.__name__}.{name}", function.__globals__[name])

    def _visit_class(self, path: str, kind: type) -> None:
        own = [base for base in kind.__mro__ if self.is_own(base.__module__, None)]
        if kind not in own:
            return
        if issubclass(kind, enum.Enum):
            for name, member in kind.__members__.items():
                self._add(f"{path}.{name}", member)
            return
        for base in own[1:]:
            self._add(f"{base.__module__}.{base.__qualname__}", base)
        self.holders[path] = kind
        self._defined[path] = {name: part for name, part in vars(kind).items() if not name.startswith(("__", "_abc_"))}
        for name, part in list(vars(kind).items()):
            self._add(f"{path}.{name}", part)

    def _visit_wrapped(self, path: str, value: Any) -> None:
        """Go on behind a compiled function, a cache, or a reference of another library's."""
        for name in ("__wrapped__", "python_function", "_python_function", "_generator"):
            inner = getattr(value, name, None) if not isinstance(value, tf.Variable) else None
            if callable(inner):
                self._add(f"{path}.{name}", inner)
        if isinstance(value, weakref.ref):
            self._add(f"{path}()", value())
        kind = type(value)
        if isinstance(value, tf.Variable | keras.Variable | tf.random.Generator | keras.random.SeedGenerator):
            self.holders[path] = value
        elif (
            kind.__module__.partition(".")[0] not in _STATELESS
            or hasattr(value, "cache_info")
            or (isinstance(value, STATE_OF_THEIR_OWN) and not hasattr(value, "fileno"))
        ):
            self._visit_parts(path, value) if is_users(kind) else self.holders.setdefault(path, value)
            self._add(f"type({path})", kind)

    def is_own(self, name: str | None, file: str | None) -> bool:
        """Return whether the user wrote a module of this name, or in this file."""
        return name in self._own_names or is_own_module(name, file)


_NOTHING = object()
_WITH_PARTS = (types.ModuleType, types.FunctionType, type)


def parts_of(holder: Any) -> list[tuple[str | int, Any]]:
    """List the parts of an object that may change one by one, with their values."""
    if isinstance(holder, types.ModuleType):
        return [(name, value) for name, value in vars(holder).items() if not (name[:2] == name[-2:] == "__")]
    if isinstance(holder, type):
        return [(name, value) for name, value in vars(holder).items() if _is_class_attribute(name, value)]
    if isinstance(holder, types.FunctionType):
        cells = [(number, _held(cell)) for number, cell in enumerate(holder.__closure__ or ())]
        found: list[tuple[str | int, Any]] = [(number, held) for number, held in cells if held is not _NOTHING]
        found += [(name, getattr(holder, name)) for name in ("__defaults__", "__kwdefaults__") if getattr(holder, name)]
        return found + list(vars(holder).items())
    if isinstance(holder, keras.callbacks.Callback):
        return list(attributes(holder))
    if not is_looked_into(holder) and not is_users(type(holder)):
        return []
    left_out = () if isinstance(holder, _WITH_ATTRIBUTES) else set_by_libraries(type(holder))
    named = vars(holder).items() if isinstance(holder, _KERAS) else attributes(holder)
    return [(name, value) for name, value in list(named) if name not in left_out or _is_a_choice(name, value)]


def _is_a_choice(name: str, value: Any) -> bool:
    """Return whether an attribute of Keras' own is a number that only users change, such as the rate of a dropout."""
    return not name.startswith("_") and type(value) in (int, float)


def is_whole(value: Any) -> bool:
    """Return whether a value is written as a whole: a container, an array, a generator of random numbers."""
    is_container = base_kind(type(value)) in CONTAINERS or held_kind(value) is not None
    return is_container or isinstance(value, np.ndarray | HostGenerator)


def is_looked_into(value: Any) -> bool:
    """Return whether the attributes of an object are slots."""
    if isinstance(value, tf.Variable | keras.Variable | tf.data.Dataset):
        return False
    if isinstance(value, _KERAS + _WITH_ATTRIBUTES):
        return True
    return hasattr(type(value), "__mro__") and is_users(type(value)) and is_plain_object(type(value))


def is_own_module(name: str | None, file: str | None = None) -> bool:
    """Return whether a module is the user's: it stands in no folder of Python's or of installed packages."""
    top = (name or "").partition(".")[0]
    if not top or top in sys.stdlib_module_names or top == "experiments_manager":
        return False
    return _is_own_file(file or getattr(sys.modules.get(name or ""), "__file__", None))


@functools.lru_cache(maxsize=4096)
def _is_own_file(file: str | None) -> bool:
    if file is None:
        return False
    path = os.path.realpath(file)
    return not path.startswith(_LIBRARY_FOLDERS) and "site-packages" not in path and "dist-packages" not in path


@functools.lru_cache(maxsize=4096)
def set_by_libraries(kind: type) -> frozenset[str]:
    """Return the attributes that classes of libraries, among the bases of a class, set themselves."""
    found: set[str] = set()
    for base in kind.__mro__:
        if base is not object and not is_own_module(base.__module__) and not is_users(base):
            found |= _stored_by(base)
    return frozenset(found)


@functools.lru_cache(maxsize=4096)
def _stored_by(base: type) -> frozenset[str]:
    functions = (getattr(value, "__func__", getattr(value, "fget", value)) for value in vars(base).values())
    codes = [_unwrapped(function).__code__ for function in functions if hasattr(_unwrapped(function), "__code__")]
    return frozenset(
        instruction.argval
        for code in codes
        for inner in codes_in(code)
        for instruction in dis.get_instructions(inner)
        if instruction.opname == "STORE_ATTR"
    )


def _unwrapped(function: Any) -> Any:
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function


def codes_in(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield a code object and those of the functions that it defines."""
    yield code
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield from codes_in(part)


def names_in(code: types.CodeType) -> set[str]:
    """Return the global names and attributes that a function mentions, and those that it defines."""
    return set().union(*(inner.co_names for inner in codes_in(code)))


def _held(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _NOTHING


def _is_class_attribute(name: str, value: Any) -> bool:
    if name.startswith(("__", "_abc_")):
        return False
    return not isinstance(value, type) and not isinstance(value, types.FunctionType) and not hasattr(value, "__get__")


def _path(path: str, holder: Any, name: str | int) -> str:
    if isinstance(name, int):
        return f"{path}.<{holder.__code__.co_freevars[name]}>"
    return f"{path}.{name}"
