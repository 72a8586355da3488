"""Which modules a Python source imports, read from the source alone."""

from __future__ import annotations

import ast
import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path

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
