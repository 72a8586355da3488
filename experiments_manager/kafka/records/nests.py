"""Nests of tuples, lists, dictionaries and `None`: walking through them, and writing them as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

_PARTS = ("x", "y", "sample_weight")


def map_nest(nest: Any, function: Callable[[str, Any], Any], path: str = "") -> Any:
    """Return the nest with each leaf replaced by what the function makes of its path and value."""
    if nest is None:
        return None
    if isinstance(nest, dict):
        return {key: map_nest(value, function, _join(path or "x", str(key))) for key, value in nest.items()}
    if isinstance(nest, tuple):
        names = _PARTS if not path and len(nest) <= len(_PARTS) else [str(number) for number in range(len(nest))]
        return tuple(map_nest(value, function, _join(path, name)) for name, value in zip(names, nest, strict=False))
    if isinstance(nest, list):
        return [map_nest(value, function, _join(path or "x", str(number))) for number, value in enumerate(nest)]
    return function(path or "x", nest)


def collect(nest: Any, value: Any, into: list[Any]) -> bool:
    """Put the values at the numbers of a nest into a list; return whether the value is nested like that."""
    if nest is None:
        return value is None
    if isinstance(nest, int):
        into[nest] = value
        return True
    if isinstance(nest, dict):
        same = isinstance(value, dict) and nest.keys() == value.keys()
        return same and all(collect(part, value[key], into) for key, part in nest.items())
    same = isinstance(value, type(nest)) and len(nest) == len(value)
    return same and all(collect(part, one, into) for part, one in zip(nest, value, strict=True))


def numbers(nest: Any) -> Iterator[int]:
    """Yield the numbers at the leaves of a nest."""
    parts = nest.values() if isinstance(nest, dict) else nest if isinstance(nest, tuple | list) else ()
    for part in parts:
        yield from numbers(part)
    if isinstance(nest, int):
        yield nest


def to_plain(nest: Any) -> Any:
    """Return a nest of numbers as JSON can hold it, in which tuples and lists are different things."""
    if isinstance(nest, dict):
        return {"dict": [[key, to_plain(value)] for key, value in nest.items()]}
    if isinstance(nest, tuple | list):
        return {"tuple" if isinstance(nest, tuple) else "list": [to_plain(value) for value in nest]}
    return nest


def from_plain(plain: Any) -> Any:
    """Return the nest that `to_plain` was given."""
    if not isinstance(plain, dict):
        return plain
    [(kind, parts)] = plain.items()
    if kind == "dict":
        return {key: from_plain(value) for key, value in parts}
    return {"tuple": tuple, "list": list}[kind](from_plain(part) for part in parts)


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name
