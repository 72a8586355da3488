"""What threads of the user's keep in variables of their own, which no checkpoint can hold.

A thread that the user's code has started is somewhere in a function, and a resume starts it anew. Whatever its
functions keep from one round to the next in local variables is lost then: it is looked at, to be named if it changes.
"""

from __future__ import annotations

import dis
import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

from experiments_manager.compat.python import target_of


def variables_of_threads(is_own: Callable[[str | None, str | None], bool]) -> Iterator[tuple[str, Any]]:
    """Yield the local variables of functions that the user's threads are in, by name, e.g. `mysettings.work().count`.

    Args:
        is_own: Says of a module's name and file whether the user wrote it.
    """
    frames = sys._current_frames()  # noqa: SLF001
    for thread in threading.enumerate():
        frame = frames.get(thread.ident) if _is_own_thread(thread, is_own) else None
        while frame is not None:
            module = frame.f_globals.get("__name__")
            if is_own(module, frame.f_code.co_filename):
                for name, value in list(frame.f_locals.items()):
                    if name not in frame.f_code.co_freevars and not _is_set_next(frame, name):
                        function = getattr(frame.f_code, "co_qualname", frame.f_code.co_name)  # since Python 3.11
                        yield f"{module}.{function}().{name}", value
            frame = frame.f_back


def _is_own_thread(thread: threading.Thread, is_own: Callable[[str | None, str | None], bool]) -> bool:
    """Return whether what a thread does was written by the user: others, such as TensorFlow's, only pass through it."""
    target = target_of(thread)
    target = getattr(target, "func", target)
    kinds = [kind for kind in type(thread).__mro__ if issubclass(kind, threading.Thread)]
    return any(is_own(getattr(part, "__module__", None), None) for part in (target, *kinds) if part is not None)


def _is_set_next(frame: types.FrameType, name: str) -> bool:
    """Return whether the first thing that comes of a variable is that it is set: then what it holds is no state."""
    instructions = list(dis.get_instructions(frame.f_code))
    places = {instruction.offset: number for number, instruction in enumerate(instructions)}
    passed: set[int] = set()
    place = next((number for offset, number in places.items() if offset > frame.f_lasti), len(instructions))
    while place < len(instructions) and place not in passed:
        passed.add(place)
        instruction = instructions[place]
        named = instruction.argval if isinstance(instruction.argval, tuple) else (instruction.argval,)
        if instruction.opname.startswith(_ALWAYS):
            place = places[instruction.argval]
        elif any(word in instruction.opname for word in _PERHAPS):
            return False
        elif name in named:  # since Python 3.13, one instruction may set one variable and read another one
            return named[0] == name and instruction.opname.startswith("STORE_FAST")
        else:
            place += 1
    return False


_ALWAYS = ("JUMP_BACKWARD", "JUMP_FORWARD", "JUMP_ABSOLUTE")
_PERHAPS = ("JUMP", "RETURN", "FOR_ITER", "SEND")
"""Words in names of instructions after which it is not certain what comes."""
