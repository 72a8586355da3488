"""Modules that lie beside a settings file, kept apart from those of another settings file in the same process."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import sys
import sysconfig
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType, TracebackType

import experiments_manager

_NOT_THE_USERS = (
    str(Path(experiments_manager.__file__).parent),
    sysconfig.get_path("stdlib"),
    sysconfig.get_path("purelib"),
)
_KNOWN: weakref.WeakSet[ModuleType] = weakref.WeakSet()
"""Every module that was ever local to an experiment in this process."""

_ACTIVE: list[_Activation] = []
"""The experiments whose code is running, the innermost last."""

_LOCK = threading.RLock()
"""Held while modules are exchanged, not while the user's code runs."""


@dataclasses.dataclass(eq=False)
class _Activation:
    owner: LocalModules
    displaced: dict[str, ModuleType]
    calls: int = 1
    """Calls that are running within this activation, nested ones and those of other threads included."""


class LocalModules:
    """What a settings file and its model file import from their own folders.

    Two experiments in one process may each have a `helpers.py`, but Python keeps one module of a name. So the modules
    of an experiment stand in `sys.modules` while its own code runs. Afterwards whatever stood there before comes back,
    save for modules of an experiment that is not running; where nothing comes back they stay, so that their classes can
    be pickled.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        further_folders: Sequence[Path] = (),
        finder: MetaPathFinder | None = None,
    ) -> None:
        """Prepare the look-up.

        Args:
            folders: Folders whose modules belong to this experiment.
            further_folders: Folders that are searched after these, for modules that are not kept apart.
            finder: Is asked first for each module while the experiment's code runs.
        """
        self._folders = list(dict.fromkeys(folders))
        self._further = [folder for folder in further_folders if folder not in self._folders]
        self._finder = finder
        self._modules: dict[str, ModuleType] = {}
        self._names = _importable_names(self._folders)
        # Python lists a folder anew when its time changed: a file that came up within a tick of that clock is missed.
        importlib.invalidate_caches()

    def add_folder(self, folder: Path) -> None:
        """Add a folder whose modules belong to this experiment, for instance that of the model file."""
        if folder not in self._folders:
            self._folders.append(folder)
            self._names |= _importable_names([folder])

    def register(self, module: ModuleType) -> None:
        """Add a module that is loaded by its path, so that it can be imported by its name, too."""
        self._names |= {module.__name__}
        sys.modules[module.__name__] = self._modules[module.__name__] = module

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """While this lasts, the experiment's own modules are what `import` finds."""
        with _LOCK:
            activation = self._begin()
        try:
            yield
        finally:
            with _LOCK:
                self._end(activation)

    def _begin(self) -> _Activation:
        if _ACTIVE and _ACTIVE[-1].owner is self:
            _ACTIVE[-1].calls += 1
            return _ACTIVE[-1]
        displaced = {name: sys.modules.pop(name) for name in self._own_loaded()}
        sys.modules.update(self._modules)
        sys.path[:0] = self._search_path()
        if self._finder is not None:
            sys.meta_path.insert(0, self._finder)
        _ACTIVE.append(_Activation(self, displaced))
        return _ACTIVE[-1]

    def _end(self, activation: _Activation) -> None:
        activation.calls -= 1
        if activation.calls:
            return
        _ACTIVE.remove(activation)
        if self._finder is not None:
            sys.meta_path.remove(self._finder)
        for folder in self._search_path():
            with contextlib.suppress(ValueError):
                sys.path.remove(folder)
        self._modules = {name: sys.modules[name] for name in self._own_loaded()}
        _KNOWN.update(self._modules.values())
        self._give_back(activation.displaced)

    def _search_path(self) -> list[str]:
        return [str(folder) for folder in (*self._folders, *self._further)]

    def _give_back(self, displaced: dict[str, ModuleType]) -> None:
        if _ACTIVE:  # this was called from within another experiment's code, which must find all as it was
            for name in self._modules:
                del sys.modules[name]
            sys.modules.update(displaced)
        else:
            sys.modules.update({name: module for name, module in displaced.items() if module not in _KNOWN})

    def _own_loaded(self) -> list[str]:
        """Return the names in `sys.modules` that are this experiment's, submodules included."""
        if self._names.isdisjoint(sys.modules):  # the usual case, asked for at every call of a hook
            return []
        return [name for name in list(sys.modules) if name.partition(".")[0] in self._names]

    def deepest_place(self, traceback: TracebackType | None) -> tuple[str, int] | None:
        """File and line of the deepest frame that runs in the user's own files, not in an installed package."""
        found = self.deepest_frame(traceback)
        return (found.tb_frame.f_code.co_filename, found.tb_lineno) if found else None

    def deepest_frame(self, traceback: TracebackType | None) -> TracebackType | None:
        """Return the entry of a traceback for that frame."""
        found = None
        while traceback is not None:
            if self._is_own(traceback.tb_frame.f_code.co_filename):
                found = traceback
            traceback = traceback.tb_next
        return found

    def deepest_of(self, frames: Iterable[tuple[str, int]]) -> tuple[str, int] | None:
        """Return the innermost frame in the user's files, of frames given as file and line, the outermost first."""
        own = [(file, line) for file, line in frames if self._is_own(file)]
        return own[-1] if own else None

    def _is_own(self, file: str) -> bool:
        folders = [*self._folders, *self._further]
        return not file.startswith(_NOT_THE_USERS) and any(Path(file).is_relative_to(folder) for folder in folders)

    @property
    def loaded(self) -> list[ModuleType]:
        """The experiment's modules that were imported so far, in the order of their names."""
        found = self._modules | {name: sys.modules[name] for name in self._own_loaded()}
        return [found[name] for name in sorted(found)]


def _importable_names(folders: Sequence[Path]) -> frozenset[str]:
    """Return names of the modules and packages that lie in folders, without those that everybody shares."""
    modules = {path.stem for folder in folders for path in folder.glob("*.py")}
    packages = {path.parent.name for folder in folders for path in folder.glob("*/__init__.py")}
    shared = {*sys.stdlib_module_names, experiments_manager.__name__, "__main__", "__init__"}
    return frozenset(name for name in modules | packages if name.isidentifier()) - shared
