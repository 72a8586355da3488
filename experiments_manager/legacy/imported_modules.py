"""Modules that a legacy settings file imports: they are read with the names that Keras has now, as the file itself."""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import CodeType, ModuleType

from experiments_manager.legacy.renamed_keras_symbols import log_replaced, rename

FRAMEWORK = "deeplearningtools"
"""The legacy framework's own package, whose helpers such files import."""

_OF_OTHERS = {"site-packages", "dist-packages"}
"""Parts of the path of a file that is not the user's although it may lie below a folder of the user's."""


class LegacyModules(importlib.abc.MetaPathFinder):
    """Finds modules that are the user's own, or the framework's, for as long as it stands in `sys.meta_path`.

    Args:
        folders: Where the user's own modules and packages are.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = list(folders)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return how such a module is loaded; `None` leaves any other to whoever comes next."""
        is_framework = fullname.partition(".")[0] == FRAMEWORK
        if not is_framework and not (self._has_top_level(fullname) if path is None else any(map(self._is_own, path))):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or not isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            return None
        if is_framework or self._is_own(spec.loader.path):
            spec.loader = _Loader(fullname, spec.loader.path)
            return spec
        return None

    def _has_top_level(self, name: str) -> bool:
        return any((folder / name).is_dir() or (folder / f"{name}.py").is_file() for folder in self._folders)

    def _is_own(self, path: str) -> bool:
        place = Path(path).absolute()
        for folder in self._folders:
            if place.is_relative_to(folder):
                return _OF_OTHERS.isdisjoint(place.relative_to(folder).parts[:-1])
        return False


class _Loader(importlib.machinery.SourceFileLoader):
    def source_to_code(self, data: bytes, path: str, *, _optimize: int = -1) -> CodeType:
        """Compile the source with the new names."""
        try:
            tree, replaced = rename(ast.parse(data, filename=path))
        except SyntaxError:
            return super().source_to_code(data, path, _optimize=_optimize)
        log_replaced(Path(path), replaced)
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimize)

    def path_stats(self, path: str) -> dict[str, int]:
        """Say that nothing is known of the file: Python would take compiled code of the original, or keep this for it.

        Raises:
            OSError: Always.
        """
        raise OSError(f"{path} is not cached")
