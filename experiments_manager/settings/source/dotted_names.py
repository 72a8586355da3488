"""Full dotted names in a source: imports are followed from their aliases to what they stand for."""

from __future__ import annotations

import ast
from collections.abc import Iterator

KERAS_IN_TENSORFLOW = (
    "tensorflow.keras",
    "tensorflow.python.keras",
    "tensorflow.compat.v1.keras",
    "tensorflow.compat.v2.keras",
)
"""Names under which TensorFlow offers Keras."""


def below_keras(dotted: str) -> tuple[str, str] | None:
    """Split a full name into the root under which Keras is reached and the rest; `None` where it is not Keras'."""
    for root in ("keras", *KERAS_IN_TENSORFLOW):
        if dotted.startswith(f"{root}."):
            return root, dotted[len(root) + 1 :]
    return None


def longest_prefix(dotted: str, names: dict[str, str]) -> str | None:
    """Return the longest of the names that a dotted name begins with, or is."""
    parts = dotted.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in names), None)


def guarded_imports(tree: ast.Module) -> set[int]:
    """Import (by `id` of the node) that may fail, because the file catches the error."""
    guarded = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) and any(_catches_import_errors(handler) for handler in node.handlers):
            imports = (item for item in node.body if isinstance(item, (ast.Import, ast.ImportFrom)))
            guarded |= {id(item) for item in imports}
    return guarded


def _catches_import_errors(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    caught = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
    return bool(caught & {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


def import_aliases(tree: ast.Module, guarded: set[int] = frozenset()) -> Iterator[tuple[str, str]]:
    """Yield each name that an import binds, with the full name of what it stands for."""
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (first, first)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def full_name(node: ast.AST, aliases: dict[str, str]) -> str | None:
    """Return the full dotted name that an expression such as `tf.keras.layers.Dense` stands for, or `None`."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in aliases:
        return None
    return ".".join([aliases[node.id], *reversed(parts)])
