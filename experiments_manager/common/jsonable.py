"""Plain JSON values from whatever settings hold."""

from __future__ import annotations

import datetime
import enum
import math
import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

_DEEPEST = 20
_LARGEST_ARRAY = 1000
_MEMORY_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def to_jsonable(value: Any, _depth: int = 0) -> Any:
    """Give the nearest value that JSON can hold; never fails.

    - NaN and the infinities, which JSON does not have, become the strings `"NaN"`, `"Infinity"` and `"-Infinity"`:
      every JSON reader can read the file, nothing is lost, and Python's `float()` turns them back.
    - Scalars and arrays of NumPy and the like become numbers and lists; arrays of more than 1000 elements are named by
      type and shape.
    - Tuples and sets become lists (sets sorted), paths and dates strings, enum members their values, functions and
      classes their dotted names, all else its `repr` without memory addresses, so that equal things compare equal.

    Args:
        value: Anything.

    Returns:
        Built of `dict` with string keys, `list`, `str`, `int`, finite `float`, `bool` and `None`.
    """
    if value is None or isinstance(value, (bool, str)) and not isinstance(value, enum.Enum):
        return value
    if isinstance(value, enum.Enum):
        return to_jsonable(value.value, _depth + 1)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return _number(float(value))
    if _depth < _DEEPEST:
        if isinstance(value, Mapping):
            return {str(key): to_jsonable(item, _depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [to_jsonable(item, _depth + 1) for item in value]
        if isinstance(value, (set, frozenset)):
            return sorted((to_jsonable(item, _depth + 1) for item in value), key=repr)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    try:
        return _foreign(value, _depth)
    except Exception:  # a foreign type may do anything here, and a manifest must be written all the same
        return f"<{type(value).__name__}>"


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _foreign(value: Any, depth: int) -> Any:
    if hasattr(value, "tolist") and hasattr(value, "shape"):
        if getattr(value, "size", 0) > _LARGEST_ARRAY:
            return f"{type(value).__name__} of shape {tuple(value.shape)}"
        return to_jsonable(value.tolist(), depth + 1)
    if hasattr(value, "__qualname__"):
        return f"{getattr(value, '__module__', '')}.{value.__qualname__}".lstrip(".")
    return _MEMORY_ADDRESS.sub("", repr(value))
