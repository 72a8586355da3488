"""May an object of the user's draw from Python's or NumPy's global generators? Seen in its code, without running it."""

from __future__ import annotations

import inspect
import random
import types
from typing import Any

import numpy as np

from experiments_manager.training.state.plain_values import is_users

_GLOBAL = (getattr(random.random, "__self__", None), getattr(np.random.rand, "__self__", None))
_DEEPEST = 4


def uses_global_generators(value: Any) -> bool:
    """Return whether a method of an object, or a function of the user's that one calls, mentions such a generator."""
    seen: set[int] = set()
    functions = [getattr(value, name, None) for name in dir(type(value)) if not name.startswith("__")]
    functions += [held for held in vars(value).values() if inspect.isroutine(held)]
    return any(_mentions(function, seen, 0) for function in functions)


def _mentions(function: Any, seen: set[int], depth: int) -> bool:
    function = inspect.unwrap(getattr(function, "__func__", function)) if callable(function) else function
    if getattr(function, "__self__", None) in _GLOBAL and getattr(function, "__self__", None) is not None:
        return True
    if not isinstance(function, types.FunctionType) or id(function) in seen or depth > _DEEPEST:
        return False
    if (function.__module__ or "").partition(".")[0] in ("keras", "tensorflow", "numpy", "experiments_manager"):
        return False
    seen.add(id(function))
    names = _names(function.__code__)
    held = [function.__globals__.get(name) for name in names]
    held += [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
    if any(part is random or part is np.random for part in held) or "random" in names:
        return True
    return any(_mentions(part, seen, depth + 1) for part in held if callable(part) and not _is_foreign_class(part))


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _is_foreign_class(part: Any) -> bool:
    return isinstance(part, type) and not is_users(part)


def _names(code: types.CodeType) -> set[str]:
    inner = (part for part in code.co_consts if isinstance(part, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))
