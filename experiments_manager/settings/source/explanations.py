"""What an exception of the user's code means, in the words of the code that raised it."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import linecache
from collections.abc import Iterable
from pathlib import Path
from types import FrameType, ModuleType, TracebackType

from experiments_manager.common.installation import distribution_of
from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.dialects import plugins
from experiments_manager.settings.schema import BY_ANY_NAME

USUAL_IMPORTS = {
    "keras": "import keras",
    "np": "import numpy as np",
    "pd": "import pandas as pd",
    "plt": "import matplotlib.pyplot as plt",
    "tf": "import tensorflow as tf",
    **{name: f"import {name}" for name in ("functools", "glob", "json", "math", "os", "random", "sys", "time")},
    "Path": "from pathlib import Path",
}


def explain(error: BaseException, place: tuple[str, int] | None) -> tuple[str, str]:
    """Say what an exception means, and how to fix it.

    Args:
        error: The exception.
        place: File and line of the user's that it came from.

    Returns:
        What happened, by the names that the code at that line writes, and a sentence that says what to do.
    """
    frame = _frame_at(error.__traceback__, place)
    lines = _expressions_at(place) if place else []
    found = None
    if isinstance(error, ModuleNotFoundError):
        found = str(error), import_remedy(error)
    elif isinstance(error, ImportError) and error.path and error.name:
        found = str(error).replace(f" ({error.path})", ""), "Correct the name."
    elif isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        found = _missing_attribute(error, lines)
    elif isinstance(error, KeyError) and frame is not None:
        found = _missing_key(error, lines, frame)
    elif isinstance(error, NameError) and frame is not None:
        found = str(error), _undefined(getattr(error, "name", None) or "", lines, frame)
    elif isinstance(error, FileNotFoundError) and error.filename:
        found = f"{error.filename!r} was not found", _missing_file(str(error.filename))
    what, remedy = found or (str(error), "Correct the line.")
    kind = type(error).__name__
    return f"{kind}: {what}" if what else kind, remedy


def _frame_at(traceback: TracebackType | None, place: tuple[str, int] | None) -> FrameType | None:
    found = None
    while traceback is not None:
        if (traceback.tb_frame.f_code.co_filename, traceback.tb_lineno) == place:
            found = traceback.tb_frame
        traceback = traceback.tb_next
    return found


def _expressions_at(place: tuple[str, int]) -> list[ast.expr]:
    file, line = place
    linecache.checkcache(str(file))
    try:
        tree = ast.parse("".join(linecache.getlines(str(file))))
    except (SyntaxError, ValueError):
        return []
    return [node for node in ast.walk(tree) if isinstance(node, ast.expr) and node.lineno <= line <= node.end_lineno]


def import_remedy(error: BaseException) -> str | None:
    """Return what helps where a module is missing, `None` where none is."""
    if not isinstance(error, ModuleNotFoundError):
        return None
    return missing_module_remedy(error.name or "")


def missing_module_remedy(module: str) -> str:
    """Return what helps where a module is missing."""
    root = module.partition(".")[0]
    for plugin in plugins():
        if root in plugin.module_remedies:
            return plugin.module_remedies[root]
    if root != module and _is_found(root):
        return f"Correct the name: `{root}` is there, and has no such module."
    return f"Install {distribution_of(root)!r}, or put the module beside the settings file."


def _is_found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _missing_attribute(error: AttributeError, expressions: Iterable[ast.expr]) -> tuple[str, str]:
    written = [ast.unparse(e.value) for e in expressions if isinstance(e, ast.Attribute) and e.attr == error.name]
    module = written[0] if written else error.obj.__name__
    hint = did_you_mean(error.name, dir(error.obj), "Correct the name.", shown=f"`{module}.{{}}`")
    return f"`{module}` has no `{error.name}`", hint


def _missing_key(error: KeyError, expressions: Iterable[ast.expr], frame: FrameType) -> tuple[str, str] | None:
    """Explain a key that a dictionary lacks, where one of the expressions looks it up in one that has a name."""
    [key] = error.args or [None]
    for node in expressions:
        if not (isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name)):
            continue
        name = node.value.id
        holder = frame.f_locals[name] if name in frame.f_locals else frame.f_globals.get(name)
        if isinstance(holder, dict) and isinstance(key, str) and key not in holder:
            keys = [item for item in holder if isinstance(item, str)]
            has = f"It has {', '.join(map(repr, keys))}." if keys else "It is empty."
            return f"`{name}` has no key {key!r}", did_you_mean(key, keys, has, shown="'{}'")
    return None


def _missing_file(path: str) -> str:
    if Path(path).is_absolute():
        return "Check the path."
    return f"Check the path: it is looked for from the working directory, {Path.cwd()}."


def _undefined(name: str, expressions: Iterable[ast.expr], frame: FrameType) -> str:
    for node in expressions:
        if isinstance(node, ast.Compare) and ast.unparse(node.left) == name and isinstance(node.ops[0], ast.Eq):
            return f"Did you mean `{ast.unparse(node).replace('==', '=', 1)}`?"
    if name in USUAL_IMPORTS:
        return f"Add `{USUAL_IMPORTS[name]}` above."
    otherwise = "Define it above this line."
    if name in BY_ANY_NAME:
        otherwise = "Assign it above this line: the settings that a file leaves out have no name in it."
    return did_you_mean(name, {*frame.f_locals, *frame.f_globals, *dir(builtins)}, otherwise)
