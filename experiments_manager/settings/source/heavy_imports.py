"""Doing without packages that take seconds to import, while a module is executed that is known to be wrong."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

HEAVY = ("tensorflow", "keras", "tf_keras")
"""Packages that take seconds to import."""


class NotImportedError(BaseException):
    """A heavy package was asked for while none is imported.

    It is no `Exception`, so that code which does without a package that is missing does not take this for its absence.
    """


@contextlib.contextmanager
def without_heavy_imports() -> Iterator[None]:
    """While this lasts, an import of a heavy package in this thread raises `NotImportedError`.

    Packages that this process has imported already stay within reach.
    """
    finder = _Refuser()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Refuser:
    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._refused = {name for name in HEAVY if name not in sys.modules}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find nothing; refuse what is heavy."""
        if name.partition(".")[0] in self._refused and threading.get_ident() == self._thread:
            raise NotImportedError(name)
        return None
