"""The best settings to go on with: as a command line, and as a settings file."""

from __future__ import annotations

import ast
import contextlib
import shlex
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments_manager.dialects import Alias
from experiments_manager.settings.hooks import HOOKS_BY_ANY_NAME
from experiments_manager.settings.overrides import HPARAMS
from experiments_manager.settings.schema import BY_ANY_NAME
from experiments_manager.settings.source.module_source import Source, names_at_top, read_source


def train_command(settings_file: Path | str, overrides: Mapping[str, Any]) -> str:
    """Return the command line that trains with these settings, with the settings file as a person would name it."""
    words = [word for name, value in overrides.items() for word in ("--set", f"{name}={_text(value)}")]
    return shlex.join(["experiments_manager", "train", _near(Path(settings_file)), *words])


def _near(file: Path) -> str:
    try:
        return str(file.relative_to(Path.cwd()))
    except ValueError:
        return str(file)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def best_settings(
    settings_file: Path, overrides: Mapping[str, Any], hparams: Collection[str], model_file: str | None, title: str
) -> str:
    """Return the source of a settings file with other values.

    Each assignment of such a setting at the top level gets the new value; what the file derives from it follows, as it
    does with `--set`. A setting that the file gives by its other name gets the new value by that name.

    Args:
        settings_file: The file to copy.
        overrides: New values by canonical or other name; of keys of `hparams` as `hparams.KEY` or `KEY`.
        hparams: Keys of the file's `hparams`, to tell the two apart.
        model_file: Absolute path of the model file, where the experiment has one.
        title: First line of the comment at its head.
    """
    source = read_source(settings_file)
    entries = {name.removeprefix(HPARAMS): value for name, value in overrides.items() if _is_entry(name, hparams)}
    settings = {name: value for name, value in overrides.items() if not _is_entry(name, hparams)}
    settings |= {"model_file": model_file} if model_file and "model_file" not in settings else {}
    settings = dict(_as_bound(name, value, source) for name, value in settings.items())
    lines = source.text.splitlines()
    for first, last, new in sorted(_changes(source.tree, settings, entries), reverse=True):
        lines[first:last] = new
    bound = {name for name in settings if name in source.names}
    rest = [f"{name} = {value!r}" for name, value in settings.items() if name not in bound]
    if rest:
        lines += ["", f"# {title}", *rest]
    return "\n".join(_with_head(lines, source.tree, title, settings_file)) + "\n"


def _is_entry(name: str, hparams: Collection[str]) -> bool:
    return name.startswith(HPARAMS) or name in hparams


def _as_bound(name: str, value: Any, source: Source) -> tuple[str, Any]:
    """Return a setting, or the value of a hook, by the name under which a file gives it, as it reads there."""
    hook, spec = HOOKS_BY_ANY_NAME.get(name), BY_ANY_NAME.get(name)
    if hook is not None:
        return (hook.other_name if hook.other_name in source.names else hook.name), value
    if spec is None or spec.alias is None:
        return name, value
    canonical = spec.alias.to_canonical(value) if name == spec.alias.name else value
    if spec.alias.name not in source.names:
        return spec.name, canonical
    return spec.alias.name, _under_alias(spec.alias, canonical)


def _under_alias(alias: Alias, value: Any) -> Any:
    """Return a value as it reads under another name; the value itself where that is a switch, and this says more."""
    found = alias.from_canonical(value)
    return found if alias.to_canonical(found) == value else value


def _changes(
    tree: ast.Module, settings: Mapping[str, Any], entries: Mapping[str, Any]
) -> Iterator[tuple[int, int, list[str]]]:
    """Yield which lines are replaced by what: plain values by the new ones; others are followed by the new ones."""
    for statement in tree.body:
        names = _bound_by(statement)
        found = [f"{name} = {names[name]}{settings[name]!r}" for name in settings if name in names]
        old = _plain_value(statement)
        if "hparams" in names and entries:
            merged = isinstance(old, dict)
            found.append(f"hparams = { {**old, **entries}!r}" if merged else f"hparams |= {dict(entries)!r}")
        if found:
            first = statement.end_lineno if old is _NONE else statement.lineno - 1
            yield first, statement.end_lineno, found


def _bound_by(statement: ast.stmt) -> dict[str, str]:
    """Return the names that a statement of the top level binds, each with what a value needs before it there.

    A value in the place of a function is a function that returns it, so that the file may go on to call it.
    """
    names = names_at_top(ast.Module([statement], []))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {name: "lambda *_, **__: " * isinstance(found[-1].node, functions) for name, found in names.items()}


_NONE = object()


def _plain_value(statement: ast.stmt) -> Any:
    """Return what a statement assigns to one name, where it is written out and alone on its lines."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name):
        with contextlib.suppress(ValueError):
            return ast.literal_eval(statement.value)
    return _NONE


def _with_head(lines: list[str], tree: ast.Module, title: str, settings_file: Path) -> list[str]:
    """Put a comment before all, and let the file find what lies beside the original."""
    folder = settings_file.parent
    head = [f"# {title}", f"# A copy of {settings_file} with the values found; train it as any settings file."]
    beside = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    imported = {name.partition(".")[0] for node in ast.walk(tree) for name in _imported(node)}
    further = []
    if any(isinstance(node, ast.Name) and node.id == "__file__" for node in ast.walk(tree)):
        further.append(f"__file__ = {str(settings_file)!r}")
    if imported & beside:
        further += ["import sys", f"sys.path.append({str(folder)!r})"]
    after = _last_future_import(tree)
    return [*head, *lines[:after], *further, *lines[after:]]


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def _last_future_import(tree: ast.Module) -> int:
    """Return the line after which other imports may stand."""
    last = 0
    for statement in tree.body:
        is_docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        if is_docstring or isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            last = statement.end_lineno or last
        else:
            break
    return last
