"""Imports of what is not there, found without importing what is heavy."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from experiments_manager.common.suggestions import nearest_name
from experiments_manager.settings.keras.table import keras_table
from experiments_manager.settings.lint.inspected import Inspected
from experiments_manager.settings.lint.keras_uses import (
    ROOTS,
    is_removed,
    meant_member,
    missing_part,
    missing_text,
)
from experiments_manager.settings.problems import Problem, SettingsError
from experiments_manager.settings.source.explanations import missing_module_remedy
from experiments_manager.settings.source.module_source import read_source

_NEVER_IMPORTED = {"antigravity", "this", "idlelib", "lib2to3", "test", "tkinter", "turtle", "turtledemo", "__main__"}


def wrong_imports(file: Inspected) -> Iterator[Problem]:
    """Find imports that will fail; a module that is missing once, with all its lines."""
    missing: dict[str, list[ast.stmt]] = {}
    for node in file.nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module(file, node, alias.name, missing)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            before = len(missing)
            found = list(_module(file, node, node.module, missing))
            yield from found
            if not found and len(missing) == before and node.module not in missing:
                yield from _names(file, node)
    if _changes_import_path(file):
        return  # where modules are found follows from executing it
    for module, nodes in missing.items():
        at_once = [node for node in nodes if not file.functions_around(node)]
        first = (at_once or nodes)[0]
        also = sorted({node.lineno for node in nodes} - {first.lineno})
        where = f" (also imported in line {', '.join(map(str, also))})" if also else ""
        text = (
            f"there is no module of this name{where}. Expected one that Python finds. {missing_module_remedy(module)}"
        )
        yield file.problem(first, module, text) if at_once else file.warning(first, module, text)


def _changes_import_path(file: Inspected) -> bool:
    return any(
        isinstance(node, (ast.Attribute, ast.Name)) and (file.full_name(node) or "") in ("sys.path", "site.addsitedir")
        for node in file.nodes
    )


def _module(file: Inspected, node: ast.stmt, module: str, missing: dict[str, list[ast.stmt]]) -> Iterator[Problem]:
    root = module.partition(".")[0]
    if root in ROOTS and _is_there(root, file.folders):
        yield from _of_table(file, node, module)
    elif not _is_there(root, file.folders):
        missing.setdefault(root, []).append(node)
    elif not _submodule_is_there(module, file.folders):
        missing.setdefault(module, []).append(node)


def _of_table(file: Inspected, node: ast.stmt, dotted: str) -> Iterator[Problem]:
    table = keras_table()
    if table is None or is_removed(file, dotted) or dotted.startswith(("tensorflow.python", "keras.src")):
        return
    missing = missing_part(table, dotted)
    if missing is not None and not _is_file(".".join(missing), file.folders):
        module, name = missing
        text = missing_text(table, module, name, module)
        yield file.problem(node, f"{module}.{name}", text, (name, meant_member(table, module, name)))


def _is_there(module: str, folders: Iterable[Path]) -> bool:
    if module in sys.builtin_module_names or module in sys.stdlib_module_names or module in sys.modules:
        return True
    if any((folder / f"{module}.py").is_file() or (folder / module).is_dir() for folder in folders):
        return True
    with contextlib.suppress(ImportError, ValueError, AttributeError):
        return importlib.util.find_spec(module) is not None
    return True


def _submodule_is_there(module: str, folders: Iterable[Path]) -> bool:
    """Return whether a module within a package is there; in doubt, that it is."""
    root, _, rest = module.partition(".")
    if not rest or module in sys.modules or root in sys.stdlib_module_names:
        return not rest or root not in sys.stdlib_module_names or _stdlib(module) is not None
    return _is_file(module, folders)


def _is_file(module: str, folders: Iterable[Path]) -> bool:
    root, _, rest = module.partition(".")
    places = [folder / root for folder in folders if (folder / root).is_dir()]
    with contextlib.suppress(ImportError, ValueError, AttributeError):
        spec = importlib.util.find_spec(root)
        places += map(Path, (spec.submodule_search_locations or ()) if spec else ())
    if not places:
        return True
    paths = [place.joinpath(*rest.split(".")) for place in places]
    return any(
        path.is_dir() or path.with_suffix(".py").is_file() or any(path.parent.glob(f"{path.name}.*")) for path in paths
    )


def _stdlib(module: str) -> ModuleType | None:
    if module.partition(".")[0] in _NEVER_IMPORTED:
        return sys.modules.get(module, ModuleType(module))
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        return None
    except Exception:  # a module of another system
        return ModuleType(module)


def _names(file: Inspected, node: ast.ImportFrom) -> Iterator[Problem]:
    module = node.module or ""
    root = module.partition(".")[0]
    for alias in node.names:
        if alias.name == "*":
            continue
        if root in ROOTS:
            yield from _of_table(file, node, f"{module}.{alias.name}")
            continue
        known = _known_names(module, file.folders)
        if known is not None and alias.name not in known and not _has_submodule(module, alias.name, file.folders):
            near = nearest_name(alias.name, known)
            hint = f"Did you mean `{near}`?" if near else "Correct the name."
            text = f"`{module}` has no `{alias.name}`. Expected a name that it binds. {hint}"
            yield file.problem(node, f"{module}.{alias.name}", text, (alias.name, near))


def _has_submodule(module: str, name: str, folders: Iterable[Path]) -> bool:
    local = any((folder / f"{module}.py").is_file() for folder in folders)
    if local:
        return False
    loaded = sys.modules.get(module)
    return loaded is None or hasattr(loaded, "__path__") and _is_file(f"{module}.{name}", folders)


def _known_names(module: str, folders: Iterable[Path]) -> set[str] | None:
    """Return what can be imported from a module, `None` where that cannot be told without importing it."""
    for folder in folders:
        path = folder / f"{module}.py"
        if path.is_file():
            return _names_of_file(path)
    if module.partition(".")[0] in sys.stdlib_module_names:
        found = _stdlib(module)
        if found is None or found.__spec__ is None:
            return None
    else:
        found = sys.modules.get(module)
    return set(dir(found)) if found is not None and not hasattr(found, "__getattr__") else None


def _names_of_file(path: Path) -> set[str] | None:
    try:
        source = read_source(path)
    except SettingsError:
        return None
    if source.has_star_import or source.readable.error or "__getattr__" in source.names or "globals(" in source.text:
        return None
    return {*source.names, "__file__", "__name__", "__doc__"}


def unknown_members_of_modules(file: Inspected) -> Iterator[Problem]:
    """Find attributes of modules that are imported in this process already and do not have them."""
    inner = {id(node.value) for node in file.nodes if isinstance(node, ast.Attribute)}
    for node in file.nodes:
        if not isinstance(node, ast.Attribute) or id(node) in inner or not isinstance(node.ctx, ast.Load):
            continue
        dotted = file.full_name(node) or ""
        if not dotted or dotted.partition(".")[0] in ROOTS or _is_local(dotted, file.folders):
            continue
        missing = _missing_member(dotted)
        if missing is not None:
            holder, name = missing
            near = nearest_name(name, dir(holder))
            hint = f"Did you mean `{near}`?" if near else "Correct the name."
            text = f"the module `{holder.__name__}` has no `{name}`. Expected a name that it has. {hint}"
            yield file.problem(node, ast.unparse(node), text)


def _is_local(dotted: str, folders: Iterable[Path]) -> bool:
    root = dotted.partition(".")[0]
    return any((folder / f"{root}.py").is_file() or (folder / root).is_dir() for folder in folders)


def _missing_member(dotted: str) -> tuple[ModuleType, str] | None:
    parts = dotted.split(".")
    root = parts[0]
    holder: object = sys.modules.get(root)
    if holder is None and root in sys.stdlib_module_names:
        holder = _stdlib(root)
    known = root
    for name in parts[1:]:
        if not isinstance(holder, ModuleType) or holder.__spec__ is None:
            return None
        known = f"{known}.{name}"
        try:
            holder = getattr(holder, name)
        except AttributeError:
            is_package = hasattr(holder, "__path__")
            if (
                is_package
                and (known in sys.modules or _is_file(known, ()))
                or hasattr(holder, "__getattr__")
                and not is_package
            ):
                return None
            return holder, name
        except Exception:  # whatever a lazy module raises; executing the line will say it
            return None
    return None
