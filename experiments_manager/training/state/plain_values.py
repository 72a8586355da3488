"""Values that hold no others, as JSON: numbers, texts, dates, paths, members of enumerations."""

from __future__ import annotations

import base64
import datetime
import decimal
import enum
import fractions
import numbers
import pathlib
import sys
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any

import numpy as np

BY_TEXT: dict[str, tuple[type, Callable[[Any], str], Callable[[str], Any]]] = {
    "datetime": (datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    "date": (datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "time": (datetime.time, datetime.time.isoformat, datetime.time.fromisoformat),
    "decimal": (decimal.Decimal, str, decimal.Decimal),
    "fraction": (fractions.Fraction, str, fractions.Fraction),
    "uuid": (uuid.UUID, str, uuid.UUID),
    "path": (pathlib.Path, str, pathlib.Path),
    "bytes": (bytes, lambda value: base64.b64encode(value).decode(), base64.b64decode),
}
PATHS = {kind.__name__: kind for kind in (pathlib.PurePosixPath, pathlib.PureWindowsPath)}
"""Paths that stand for themselves; any other is one of the machine that reads it."""
_BUILT_IN = (*sys.stdlib_module_names, "keras", "tensorflow", "numpy", "experiments_manager")


def simple_value(value: Any) -> Any:
    """JSON of a value that holds no others; `NotImplemented` for all else."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is complex:
        return {"__complex__": [value.real, value.imag]}
    if kind is datetime.timedelta:
        return {"__timedelta__": [value.days, value.seconds, value.microseconds]}
    if kind in (datetime.datetime, datetime.time) and (value.fold or not _is_fixed(value.tzinfo)):
        return _zoned(value)
    if kind in (range, slice):
        return {"__range__": [value.start, value.stop, value.step], "kind": kind.__name__}
    if isinstance(value, enum.Flag):  # some of them together have no name of their own
        return {"__enum__": class_name(kind), "name": None, "value": value.value}
    if isinstance(value, enum.Enum):
        return {"__enum__": class_name(kind), "name": value.name}
    if isinstance(value, pathlib.PurePath) and kind.__name__ in PATHS:
        return {"__path__": str(value), "kind": kind.__name__}
    if isinstance(value, numbers.Real | str) and not isinstance(value, np.generic) and not is_users(kind):
        for name in ("decimal", "fraction"):
            if kind is BY_TEXT[name][0]:
                return {"__text__": name, "value": str(value)}
        return str(value) if isinstance(value, str) else float(value)
    for name, (known, write, _) in BY_TEXT.items():
        if kind is known or (known is pathlib.Path and isinstance(value, known)):
            return {"__text__": name, "value": write(value)}
    return NotImplemented


def _is_fixed(zone: Any) -> bool:
    return zone is None or type(zone) is datetime.timezone


def _zoned(value: datetime.datetime | datetime.time) -> Any:
    """JSON of a time in a zone whose offset changes; `NotImplemented` where the zone has no name."""
    fixed = value.tzinfo if _is_fixed(value.tzinfo) else None
    zone = None if _is_fixed(value.tzinfo) else getattr(value.tzinfo, "key", None)
    if fixed is None and value.tzinfo is not None and not (type(value.tzinfo) is zoneinfo.ZoneInfo and zone):
        return NotImplemented
    text = value.replace(tzinfo=fixed, fold=0).isoformat()
    return {"__zoned__": text, "kind": type(value).__name__, "fold": value.fold, "zone": zone}


def is_users(kind: type) -> bool:
    """Return whether a class is none of Python's, Keras', TensorFlow's or NumPy's."""
    return kind.__module__.partition(".")[0] not in _BUILT_IN


def class_name(kind: type) -> str:
    """Return `module:Class.Inner`."""
    return f"{kind.__module__}:{kind.__qualname__}"
