"""How Python runs while a feed reads records in a thread of its own."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator

_SWITCH_SECONDS = 0.0005
"""How long a thread may keep Python to itself while others wait for it: reading and training hand over batches."""
_switch_seconds_before: list[float] = []
"""One entry for each feed that reads."""


@contextlib.contextmanager
def reading_records() -> Iterator[None]:
    """Let threads take turns often, and the garbage collector leave alone what is there already.

    Records are many objects; for every few thousands of them it would look through all objects of TensorFlow and of the
    model, which takes a quarter of a second.
    """
    _switch_seconds_before.append(sys.getswitchinterval())
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.freeze()
    try:
        yield
    finally:
        seconds = _switch_seconds_before.pop()
        if not _switch_seconds_before:
            sys.setswitchinterval(seconds)
            gc.unfreeze()
