"""Has a value changed? A text that is equal for equal values, also of what has no form in a checkpoint."""

from __future__ import annotations

import dis
import inspect
import json
import pickle
import types
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from experiments_manager.training.state.plain_state import (
    CONTAINERS,
    NotSerializableError,
    Packer,
    TracedValueError,
    base_kind,
    described,
)
from experiments_manager.training.state.user_objects import MOST_ITEMS, codes_in

_MOST_TEXT = 200


def look(value: Any, in_state: Callable[[Any], bool], known: Mapping[int, str], *, content: bool = False) -> str:
    """Return a text that tells a value from others.

    Args:
        value: Any.
        in_state: As for `Packer`.
        known: As for `Packer`; such an object stands for itself, whatever it holds.
        content: Whether to look at what such an object holds instead.
    """
    if content and base_kind(type(value)) in CONTAINERS and len(value) > MOST_ITEMS:
        found = _pickled(value)  # at the speed of C
        if found != UNSEEN:
            return f"~p{found} {len(value)}"
    looker = _Looker("", in_state, known)
    text = json.dumps(looker.content_of(value) if content else looker.pack(value), sort_keys=True)
    return text if len(text) <= _MOST_TEXT and not looker.sums else f"~{zlib.crc32(text.encode()):08x} {len(text)}"


def is_comparable(text: str) -> bool:
    """Return whether a look at a large value is the same in each process."""
    return is_large(text) and not text.startswith("~p")


def is_large(text: str) -> bool:
    """Return whether a look is but a sum of what is in a value."""
    return text.startswith("~")


class _Looker(Packer):
    """Packs what can be packed, sums of arrays in the place of these, and a look at what cannot be."""

    sums = False
    """Whether sums stand for arrays."""

    def content_of(self, value: Any) -> Any:
        try:
            return self.content(value)
        except (NotSerializableError, RecursionError):
            return self._opaque(value)

    def pack(self, value: Any, depth: int = 0) -> Any:
        try:
            packed = super().pack(value, depth)
        except TracedValueError:
            return "traced"
        except (NotSerializableError, RecursionError):
            return self._opaque(value)
        if isinstance(packed, dict) and "__set__" in packed:
            packed["__set__"] = sorted(packed["__set__"], key=repr)
        return packed

    def _large(self, array: np.ndarray) -> str:
        self.sums = True
        return _sum_of(array)

    def _tensor(self, value: tf.Tensor) -> str:
        return _sum_of(value.numpy())

    def _opaque(self, value: Any) -> Any:
        if isinstance(value, types.GeneratorType | types.CoroutineType):
            frame = value.gi_frame if isinstance(value, types.GeneratorType) else None
            held = {} if frame is None else {name: self.pack(part, 90) for name, part in frame.f_locals.items()}
            return {"generator": value.__qualname__, "at": frame and frame.f_lasti, "holds": held}
        if hasattr(value, "cache_info"):
            function = getattr(value, "__wrapped__", None)
            return {"cache": None if _only_computes(function) else value.cache_info().currsize}
        if inspect.isroutine(value) or isinstance(value, type):
            return {"code": described(value)}
        if hasattr(value, "__length_hint__"):
            return {"iterator": described(value), "left": value.__length_hint__()}
        return {"kind": described(value), "sum": _pickled(value)}


def _only_computes(function: Any) -> bool:
    """Return whether nothing that a function does outlives it, as far as its code shows: then a cache is no state."""
    if not isinstance(function, types.FunctionType):
        return False
    for code in codes_in(function.__code__):
        for instruction in dis.get_instructions(code):
            name = instruction.argval
            stores = instruction.opname in _STORES or (
                instruction.opname == "STORE_DEREF" and name in function.__code__.co_freevars
            )
            if stores or (isinstance(name, str) and name in _DRAWS):
                return False
    return True


_STORES = ("STORE_GLOBAL", "STORE_ATTR", "STORE_SUBSCR", "DELETE_GLOBAL", "DELETE_ATTR", "DELETE_SUBSCR")
_DRAWS = ("random", "rng", "next", "append", "pop", "update", "normal", "integers", "time", "cache_info")


def is_opaque(text: str) -> bool:
    """Return whether a look could not see what is in a value."""
    return UNSEEN in text


UNSEEN = "cannot be seen"
"""Stands for what cannot be looked into."""


def _pickled(value: Any) -> str:
    """Return the sum of an object's pickle, which is never read."""
    buffers: list[pickle.PickleBuffer] = []
    try:
        found = zlib.crc32(pickle.dumps(value, protocol=5, buffer_callback=buffers.append))
        for buffer in buffers:
            found = zlib.crc32(buffer.raw(), found)
    except Exception:  # whatever the code of others raises
        return UNSEEN
    return f"{found:08x}"


def _sum_of(array: np.ndarray) -> str:
    if array.dtype.hasobject:
        return f"{array.shape} {zlib.crc32(repr(array.tolist()).encode()):08x}"
    data = array if array.flags.c_contiguous else np.ascontiguousarray(array)
    return f"{array.shape} {array.dtype} {zlib.crc32(data.reshape(-1).view(np.uint8)):08x}"
