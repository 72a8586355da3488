"""What the engine needs of Python's own objects and Python has no public name for.

`tests/compat/test_python.py` tests it; where a new release of Python fails there, look here for what to do.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Collection
from typing import Any, NamedTuple


class _Table(NamedTuple):
    """How a set is laid out in memory: `PySetObject` of CPython, in words after its type."""

    filled: int
    """Places that hold an element, or held one that was removed."""
    used: int
    mask: int
    """Number of places less one."""
    table: int
    hash: int
    finger: int
    """Where `pop` looks first."""


def target_of(thread: threading.Thread) -> Any:
    """Return the function that a thread was made with; `None` where its class overrides `run`, or it has ended.

    Use: whether a thread is one of the user's. Missing: a public name of `Thread._target`. When a release breaks it:
    see what `Thread.__init__` keeps.
    """
    return getattr(thread, "_target", None)


def can_be_filled_again(elements: set | frozenset) -> bool:
    """Return whether a new set that is given the elements of another in their order behaves as that one.

    Use: a checkpoint holds a set as the list of its elements. After removals, or where it was larger once, a set gives
    its elements in another order than a new one, puts further ones elsewhere, and `pop` goes on from where it was.
    Missing: a way to see that. When a release breaks it: see `PySetObject` in CPython's `setobject.h`; where the layout
    is another one than expected, no set counts as one that can be filled again.
    """
    if not _layout_is_known():
        return False
    found = _table(elements)
    again = set()
    again.update(list(elements))
    only_filled = found.filled == found.used and not found.finger
    return only_filled and found.mask == _table(again).mask and _same(elements, again)


def _same(one: Collection, other: Collection) -> bool:
    return all(mine is theirs for mine, theirs in zip(one, other, strict=True))


def _table(elements: set | frozenset) -> _Table:
    return _Table(*(ctypes.c_ssize_t * len(_Table._fields)).from_address(id(elements) + object.__basicsize__))


@functools.cache
def _layout_is_known() -> bool:
    probe = set(range(3))
    fresh = _table(probe)
    probe.pop()
    after = _table(probe)
    return (*fresh[:3], fresh.finger, *after[:3], after.finger) == (3, 3, 7, 0, 3, 2, 7, 1)
