"""Executing a module of the user's, and saying where it failed."""

from __future__ import annotations
import __future__

import ast
import functools
import importlib.machinery
import importlib.util
import operator
from collections.abc import MutableMapping
from types import ModuleType
from typing import Any

from experiments_manager.settings.local_modules import LocalModules
from experiments_manager.settings.problems import Problem, SettingsError, problem_at
from experiments_manager.settings.source import Source

_FUTURE_FLAGS = functools.reduce(
    operator.or_, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
)
"""The bits of a compiled unit that `from __future__ import …` sets."""


def new_module(source: Source) -> ModuleType:
    """Makes the module of a source, not executed yet, by the name under which it can be imported."""
    name, path = source.file.stem, str(source.file)
    loader = importlib.machinery.SourceFileLoader(name, path)
    return importlib.util.module_from_spec(importlib.util.spec_from_file_location(name, path, loader=loader))


def execute(
    source: Source, module: ModuleType, local_modules: LocalModules, names: MutableMapping[str, Any] | None = None
) -> None:
    """Executes a module of the user's.

    Args:
        source: Its source.
        module: The module that it fills.
        local_modules: What it finds by `import`; it is added there itself.
        names: Where its top level binds names, e.g. a `Namespace` over the module's dictionary; by default that
            dictionary.

    Raises:
        SettingsError: It raised; the problem names the deepest line of the user's own, the exception is the cause.
    """
    with local_modules.active():
        local_modules.register(module)
        try:
            _run(source, vars(module), vars(module) if names is None else names)
        except (Exception, SystemExit) as error:
            raise SettingsError([_failure(source, error, local_modules)]) from error


def _run(source: Source, module_globals: dict[str, Any], names: MutableMapping[str, Any]) -> None:
    """Executes the statements one by one.

    Python's compiler lets the whole top level write around `names` where any function of the same unit declares a name
    `global`. So each statement is a unit of its own.
    """
    file = str(source.file)
    flags = compile(source.tree, file, "exec", dont_inherit=True).co_flags & _FUTURE_FLAGS
    for position, statement in enumerate(source.tree.body):
        if position and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # a bare text would be taken for the docstring of its unit
        unit = ast.Module(body=[statement], type_ignores=[])
        exec(compile(unit, file, "exec", flags=flags, dont_inherit=True), module_globals, names)


def _failure(source: Source, error: BaseException, local_modules: LocalModules) -> Problem:
    file, line = local_modules.deepest_place(error.__traceback__) or (source.file, 1)
    if isinstance(error, SyntaxError) and error.filename:
        file, line = error.filename, error.lineno or 1
    kind = type(error).__name__
    what = f"{kind}: {error}" if str(error) else kind
    remedy = import_remedy(error) or "Correct the line."
    text = f"executing this raised {what}. Expected a module that can be imported. {remedy}"
    return problem_at(file, line, kind, text)


def import_remedy(error: BaseException) -> str | None:
    """What helps where a module is missing, `None` where none is."""
    if not isinstance(error, ModuleNotFoundError):
        return None
    if (error.name or "").partition(".")[0] == "deeplearningtools":
        return "Install that package, or copy the helpers that you use beside the settings file."
    return f"Install {error.name!r}, or put it beside the settings file."
