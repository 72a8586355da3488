"""The user's code as it was when the run started, verbatim, loadable from the run folder alone.

Copied are the settings module, its model file, and every *local* module that one of them imports, directly or through
others. Local is what is found, as Python would find it, in the settings file's folder, the model file's folder, the
working directory or a further search root; not local are the standard library, installed packages and this package.
What is imported is read from the sources, nothing is executed: names that a program puts together are not seen.

Each module keeps the place that its import name asks for (`lib.layers` becomes `settings/lib/layers.py`), so that with
`settings/` alone on `sys.path` every import finds what it found before. The settings file comes to stand at
`settings/<its name>`; the model file at the same place relative to it as before where it was below the settings file's
folder, else at `settings/<its name>`, or at `settings/model_file/<its name>` where that name is taken.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.machinery
import logging
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from experiments_manager.common import atomic
from experiments_manager.runs.errors import RunError, explain

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Import:
    """One imported module, or a name that may be one (`c` in `from a.b import c`)."""

    parts: tuple[str, ...]
    """`("a", "b", "c")`; may be empty for `from . import *`."""
    level: int
    """Leading dots: 0 for an absolute import."""


def imports_of(source: bytes, file: Path) -> list[Import]:
    """List what a source file imports, also inside functions and by `importlib.import_module("literal")`.

    Args:
        source: The content of a Python file; one that cannot be parsed imports nothing.
        file: Its name, for messages.

    Returns:
        Each once.
    """
    try:
        tree = ast.parse(source, filename=str(file))
    except (SyntaxError, ValueError) as error:
        logger.warning("%s is kept as it is, but what it imports cannot be told: %s", file, error)
        return []
    return list(dict.fromkeys(found for node in ast.walk(tree) for found in _imports_at(node)))


def _imports_at(node: ast.AST) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(tuple(alias.name.split(".")), 0)
    elif isinstance(node, ast.ImportFrom):
        base = tuple(node.module.split(".")) if node.module else ()
        yield Import(base, node.level)
        for alias in node.names:
            if alias.name != "*":
                yield Import((*base, alias.name), node.level)
    elif isinstance(node, ast.Call) and _imports_by_name(node.func) and node.args:
        name = node.args[0]
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            stripped = name.value.lstrip(".")
            yield Import(tuple(stripped.split(".")), len(name.value) - len(stripped))


def _imports_by_name(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute):
        return function.attr == "import_module"
    return isinstance(function, ast.Name) and function.id in ("import_module", "__import__")


_THIS_PACKAGE = __name__.partition(".")[0]
_SUFFIXES = (*importlib.machinery.EXTENSION_SUFFIXES, ".py")
_INSTALLED = {"site-packages", "dist-packages"}


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """What was copied; all places are relative to the snapshot's folder, with `/` between folders."""

    settings_file: str
    model_file: str | None
    files: tuple[str, ...]
    """Every place, sorted."""
    sources: tuple[Path, ...]
    """Where the files were copied from, in the order of `files`."""
    sha256: tuple[str, ...] = ()
    """Checksums, in the order of `files`."""


def take_snapshot(
    destination: Path,
    settings_file: Path | str,
    model_file: Path | str | None = None,
    search_roots: Iterable[Path | str] = (),
) -> Snapshot:
    """Copy the settings module, its model file and every local module they import.

    Args:
        destination: The snapshot's folder, e.g. `<run>/settings`; it appears whole or not at all, and replaces one
            that is there.
        settings_file: The user's settings module.
        model_file: The user's model file, where there is one.
        search_roots: Further folders on the import path, searched last.

    Returns:
        What was copied, and to which places.

    Raises:
        RunError: A file could not be read or written.
    """
    collector = _Collector(Path(settings_file), None if model_file is None else Path(model_file), search_roots)
    copied = dict(sorted(collector.collect().items()))
    stage = atomic.staging_path(destination)
    try:
        for place, file in copied.items():
            (stage / place).parent.mkdir(parents=True, exist_ok=True)
            (stage / place).write_bytes(file.content)
        atomic.replace_directory(stage, destination)
    except OSError as error:
        raise explain(error, "copy the settings to", destination) from error
    finally:
        if stage.exists():
            shutil.rmtree(stage, ignore_errors=True)
    return Snapshot(
        settings_file=str(collector.settings_place),
        model_file=None if collector.model_place is None else str(collector.model_place),
        files=tuple(str(place) for place in copied),
        sources=tuple(file.source for file in copied.values()),
        sha256=tuple(hashlib.sha256(file.content).hexdigest() for file in copied.values()),
    )


def altered_copies(folder: Path, noted: Mapping[str, str]) -> list[Path]:
    """Tell which copies are not what they were when the run began: altered, or missing.

    Args:
        folder: Of the run.
        noted: SHA-256 of each file, by its place in the folder.
    """
    return [folder / place for place, digest in noted.items() if _digest(folder / place) != digest]


def _digest(file: Path) -> str | None:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return None


def changed_files(snapshot: Path, settings_file: Path | str, model_file: Path | str | None = None) -> list[Path]:
    """Tell which files of the user's differ from their copies.

    Args:
        snapshot: The snapshot's folder.
        settings_file: The settings module as it is now.
        model_file: The model file as it is now, where the experiment has one.

    Returns:
        The files that were changed since; none where they cannot be read, as on another machine.
    """
    try:
        found = _Collector(Path(settings_file), None if model_file is None else Path(model_file), ()).collect()
        return [file.source for place, file in found.items() if _differs(snapshot / place, file.content)]
    except (RunError, OSError):
        return []


def _differs(copy: Path, content: bytes) -> bool:
    # What has no copy is imported by a file that has changed, or lies in another working directory.
    return copy.is_file() and copy.read_bytes() != content


@dataclasses.dataclass(frozen=True)
class _File:
    """A file, read once: what is searched for imports is what is copied."""

    source: Path
    content: bytes


class _Collector:
    """Follows imports from file to file, and gives each file its place."""

    def __init__(self, settings_file: Path, model_file: Path | None, search_roots: Iterable[Path | str]) -> None:
        settings_file = _existing(settings_file, "settings file")
        self.settings_place = PurePosixPath(settings_file.name)
        self.model_place: PurePosixPath | None = None
        self._roots = [settings_file.parent]
        self._found: dict[PurePosixPath, _File] = {}
        self._to_read: list[PurePosixPath] = []
        self._add(self.settings_place, settings_file)
        self._model_file = None if model_file is None else _existing(model_file, "model file")
        if self._model_file is not None:
            self._roots.append(self._model_file.parent)
        self._roots += [Path.cwd(), *(Path(root).absolute() for root in search_roots)]
        self._installed = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]

    def collect(self) -> dict[PurePosixPath, _File]:
        """Give the file for each place."""
        self._follow()
        if self._model_file is not None:
            self.model_place = self._place_of_model(self._model_file)
            self._add(self.model_place, self._model_file)
            self._follow()
        return self._found

    def _follow(self) -> None:
        while self._to_read:
            place = self._to_read.pop()
            file = self._found[place]
            if file.source.suffix == ".py":
                for wanted in imports_of(file.content, file.source):
                    self._add_import(wanted, place, file.source)

    def _add_import(self, wanted: Import, place: PurePosixPath, source: Path) -> None:
        if wanted.level:
            # `from .. import x` starts from the importing file itself, wherever that was found.
            if wanted.level > len(place.parents):
                return
            self._add_module(wanted.parts, source.parents[wanted.level - 1], place.parents[wanted.level - 1])
        elif wanted.parts[0] != _THIS_PACKAGE:
            for root in self._roots_of(wanted.parts[0]):
                self._add_module(wanted.parts, root, PurePosixPath())

    def _roots_of(self, name: str) -> list[Path]:
        """Give the root that has the top-level module; several only where its folders have no `__init__.py`."""
        if self._is_loaded_from_elsewhere(name):
            return []
        # A `random.py` that happens to lie in the working directory is not what `import random` found.
        roots = self._roots[:1] if name in sys.stdlib_module_names else self._roots
        namespaces = []
        for root in roots:
            if _module_file(root, name) is not None:
                return [root]
            if (root / name).is_dir():
                namespaces.append(root)
        return namespaces

    def _is_loaded_from_elsewhere(self, name: str) -> bool:
        file = getattr(sys.modules.get(name), "__file__", None)
        return isinstance(file, str) and self._is_installed(Path(file))

    def _add_module(self, parts: tuple[str, ...], folder: Path, place: PurePosixPath) -> None:
        """Add the module `parts` below `folder`, and every package on the way to it."""
        for part in parts:
            file = _module_file(folder, part)
            if file is not None and not self._is_installed(file):
                self._add(place / file.relative_to(folder).as_posix(), file)
            folder, place = folder / part, place / part

    def _add(self, place: PurePosixPath, source: Path) -> None:
        if place not in self._found:
            self._found[place] = _File(source, _read(source))
            self._to_read.append(place)

    def _is_installed(self, file: Path) -> bool:
        resolved = file.resolve()
        return bool(_INSTALLED & set(resolved.parts)) or any(map(resolved.is_relative_to, self._installed))

    def _place_of_model(self, model_file: Path) -> PurePosixPath:
        if model_file.is_relative_to(self._roots[0]):
            return PurePosixPath(model_file.relative_to(self._roots[0]).as_posix())
        place = PurePosixPath(model_file.name)
        taken = self._found.get(place)
        if taken is None or taken.source.samefile(model_file):
            return place
        return PurePosixPath("model_file", model_file.name)


def _module_file(folder: Path, name: str) -> Path | None:
    """Find a package or module in one folder, in Python's order: package, extension module, source."""
    candidates = [folder / name / "__init__.py", *(folder / f"{name}{suffix}" for suffix in _SUFFIXES)]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _read(source: Path) -> bytes:
    try:
        return source.read_bytes()
    except OSError as error:
        raise RunError(f"Cannot read {source}: {error.strerror}. Check its permissions.") from error


def _existing(file: Path, role: str) -> Path:
    if not file.is_file():
        raise RunError(f"There is no {role} {file}. Expected a Python file. Check the path.")
    return file.parent.resolve() / file.name
