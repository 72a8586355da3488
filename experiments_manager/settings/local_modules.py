"""Modules that lie beside a settings file, kept apart from those of another settings file in the same process."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, TracebackType


class LocalModules:
    """What a settings file and its model file import from their own folders.

    Two experiments in one process may each have a `helpers.py`. Python keeps one module of a name only, so the modules of
    an experiment stand in `sys.modules` while its own code runs; afterwards whatever stood there before comes back. Where
    nothing did they stay, so that their classes can still be pickled.
    """

    def __init__(self, folders: Sequence[Path], further_folders: Sequence[Path] = ()) -> None:
        """Prepares the look-up.

        Args:
            folders: Folders whose modules belong to this experiment.
            further_folders: Folders that are searched after these, for modules that are not kept apart.
        """
        self._folders = list(dict.fromkeys(folders))
        self._search = [str(folder) for folder in dict.fromkeys([*folders, *further_folders])]
        self._modules: dict[str, ModuleType] = {}
        self._names: frozenset[str] = frozenset()
        self._depth = 0
        self._find_names()

    def add_folder(self, folder: Path) -> None:
        """Adds a folder, for instance that of the model file."""
        if folder not in self._folders:
            self._folders.append(folder)
            self._search.insert(len(self._folders) - 1, str(folder))
            self._find_names()

    def register(self, module: ModuleType) -> None:
        """Adds a module that was loaded by its path."""
        self._names |= {module.__name__}
        self._modules[module.__name__] = module
        sys.modules[module.__name__] = module

    def _find_names(self) -> None:
        files = [path.stem for folder in self._folders for path in folder.glob("*.py")]
        packages = [path.parent.name for folder in self._folders for path in folder.glob("*/__init__.py")]
        own = set(files + packages) - set(sys.stdlib_module_names) - {"experiments_manager", "__main__"}
        self._names |= frozenset(name for name in own if name.isidentifier())

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """While this lasts, the experiment's own modules are what `import` finds."""
        if self._depth:
            yield
            return
        displaced = self._take_out()
        sys.modules.update(self._modules)
        sys.path[:0] = self._search
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            for folder in self._search:
                with contextlib.suppress(ValueError):
                    sys.path.remove(folder)
            self._modules = {name: module for name, module in list(sys.modules.items()) if self._is_own(name)}
            sys.modules.update(displaced)

    def _take_out(self) -> dict[str, ModuleType]:
        names = [name for name in list(sys.modules) if self._is_own(name)]
        return {name: sys.modules.pop(name) for name in names}

    def _is_own(self, name: str) -> bool:
        return name.partition(".")[0] in self._names

    def files(self) -> set[str]:
        """Absolute paths of the modules that were loaded."""
        found = (getattr(module, "__file__", None) for module in self._modules.values())
        return {str(Path(file).absolute()) for file in found if file}

    def deepest_place(self, traceback: TracebackType | None) -> tuple[str, int] | None:
        """File and line of the deepest frame that runs in the user's own files."""
        own, place = self.files() | self._loading_files(), None
        while traceback is not None:
            file = traceback.tb_frame.f_code.co_filename
            if file in own:
                place = file, traceback.tb_lineno
            traceback = traceback.tb_next
        return place

    def _loading_files(self) -> set[str]:
        """Files of modules whose import has just failed, so that they are in no table any more."""
        found = set()
        for folder in self._folders:
            for name in self._names:
                found |= {str(folder / f"{name}.py"), *(str(path) for path in (folder / name).rglob("*.py"))}
        return found
