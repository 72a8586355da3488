"""Folders of data that are read from a copy on this machine's own disk, and what names them.

While copies are in use, settings name the copy wherever they name the original, and what is written for later names
the original: a run goes on elsewhere, where there is another copy.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

_copies: dict[str, str] = {}
_originals: dict[str, str] = {}
_used: set[str] = set()


@contextlib.contextmanager
def in_use(copies: Mapping[Path, Path]) -> Iterator[None]:
    """Inside, `to_copies` and `to_originals` know these copies.

    Args:
        copies: Absolute paths of the copies by those of the originals.
    """
    for original, copy in copies.items():
        _copies[str(original)] = _copies[os.path.realpath(original)] = str(copy)
        _originals[str(copy)] = str(original)
    try:
        yield
    finally:
        for held in (_copies, _originals, _used):
            held.clear()


def unused() -> list[str]:
    """Return originals that no value has named so far."""
    return [original for copy, original in _originals.items() if copy not in _used]


def to_copies(value: Any, *, is_path: bool = False) -> Any:
    """Return a value with paths of the copies for those of the originals, also in lists and dictionaries.

    Args:
        value: Anything.
        is_path: Whether a text is a path even if it is relative; others may be anything.
    """
    if not _copies:
        return value

    def local(path: str) -> str:
        if not (is_path or Path(path).is_absolute()):
            return path
        found = _moved(normal_path(path), _copies)
        if found is None:
            return path
        _used.update(copy for copy in _originals if _is_below(found, copy))
        return found

    return _mapped(value, local)


def to_originals(value: Any) -> Any:
    """Return a value with paths of the originals for those of the copies, also in lists and dictionaries."""
    return _mapped(value, lambda path: _moved(path, _originals) or path) if _originals else value


def normal_path(path: str | Path) -> str:
    """Return an absolute path without `..`; links stay as they are."""
    return os.path.normpath(Path(path).absolute())


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """Return the value itself where nothing of it changes."""
    if type(value) is str:
        return change(value)
    if isinstance(value, Path):
        path = normal_path(value)
        changed = change(path)
        return value if changed == path else Path(changed)
    if type(value) in (list, tuple):
        items = [_mapped(item, change) for item in value]
        is_same = all(one is other for one, other in zip(items, value, strict=True))
        return value if is_same else type(value)(items)
    if type(value) is dict:
        entries = {key: _mapped(item, change) for key, item in value.items()}
        return value if all(entries[key] is value[key] for key in value) else entries
    return value


def _moved(path: str, places: Mapping[str, str]) -> str | None:
    for place, other in places.items():
        if _is_below(path, place):
            return other + path[len(place) :]
    return None


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
