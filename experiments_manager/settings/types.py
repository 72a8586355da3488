"""The types that settings have, and how a person is told of them."""

from __future__ import annotations

import os
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import annotated_types
import pydantic


def plain_value(value: Any) -> Any:
    """Turn NumPy's scalars and one-dimensional arrays into Python's own, without importing NumPy."""
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    return value


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, (tuple, range)) else plain_value(value)


def _as_text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _whole(value: Any) -> Any:
    value = plain_value(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _zero_as_none(value: Any) -> Any:
    value = _whole(value)
    return None if value == 0 and isinstance(value, int) and not isinstance(value, bool) else value


_Plain = pydantic.BeforeValidator(plain_value)

Flag = Annotated[bool, _Plain]
Integer = Annotated[int, _Plain]
Count = Annotated[int, annotated_types.Ge(0), _Plain]
PositiveCount = Annotated[int, annotated_types.Ge(1), _Plain]
Steps = Annotated[PositiveCount | None, pydantic.BeforeValidator(_zero_as_none)]
"""A number of steps; 0 says the same as `None`."""
Samples = Annotated[int, annotated_types.Ge(0), pydantic.BeforeValidator(_whole)]
"""A number of samples; a quotient such as 1e4 or 5000 / 2 will do."""
NotNegative = Annotated[float, annotated_types.Ge(0), _Plain]
Positive = Annotated[float, annotated_types.Gt(0), _Plain]
Fraction = Annotated[float, annotated_types.Gt(0), annotated_types.Lt(1), _Plain]
Momentum = Annotated[float, annotated_types.Ge(0), annotated_types.Lt(1), _Plain]
Port = Annotated[int, annotated_types.Ge(1), annotated_types.Le(65535), _Plain]
MessageSize = Annotated[int, annotated_types.Ge(1), annotated_types.Le(2**31 - 1), _Plain]
"""Bytes of a gRPC message, which never has more than 2 GiB."""
Text = Annotated[str, _Plain]
PathText = Annotated[str, pydantic.BeforeValidator(_as_text)]
Names = Annotated[list[str], pydantic.BeforeValidator(_as_list)]
Indices = Annotated[list[Count], pydantic.BeforeValidator(_as_list)]
Dictionary = dict[str, Any]
Anything = Any


def describe(annotation: Any) -> str:
    """Say a type in words, e.g. `int of 1 or more, or None`."""
    parts = _alternatives(annotation)
    return ", or ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]


def _alternatives(annotation: Any) -> list[str]:
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _bounded(*typing.get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        return [words for member in typing.get_args(annotation) for words in _alternatives(member)]
    if origin is Literal:
        return [repr(member) for member in typing.get_args(annotation)]
    if origin is list:
        return ["list of " + describe(typing.get_args(annotation)[0])]
    if origin is dict or annotation in (dict, Mapping):
        return ["dict with str keys"]
    if annotation is Any:
        return ["any value"]
    if annotation is type(None) or annotation is None:
        return ["None"]
    return [annotation.__name__]


def _bounded(inner: Any, *extra: Any) -> list[str]:
    first, *rest = _alternatives(inner)
    bounds = []
    for item in extra:
        if isinstance(item, annotated_types.Ge):
            bounds.append(f"of {item.ge} or more")
        elif isinstance(item, annotated_types.Gt):
            bounds.append(f"above {item.gt}")
        elif isinstance(item, annotated_types.Le):
            bounds.append(f"up to {item.le}")
        elif isinstance(item, annotated_types.Lt):
            bounds.append(f"below {item.lt}")
    return [" ".join([first, " and ".join(bounds)]) if bounds else first, *rest]


def allows_none(annotation: Any) -> bool:
    """Return whether `None` is a value of this type."""
    return "None" in _alternatives(annotation) or annotation is Any


def choices(annotation: Any) -> list[Any]:
    """Return the values that a type allows by name, as `Literal` does; empty for other types."""
    if typing.get_origin(annotation) is Literal:
        return list(typing.get_args(annotation))
    members = typing.get_args(annotation) if typing.get_origin(annotation) is not None else ()
    members = members or (annotation.__args__ if isinstance(annotation, types.UnionType) else ())
    return [choice for member in members for choice in choices(member)]
