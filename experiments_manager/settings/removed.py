"""Names that a settings or model file may still use although Keras 3 or TensorFlow took them away.

Only the source is looked at: imports are followed from their aliases to full dotted names, and each of these is compared
with the table below. Nothing is imported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from experiments_manager.settings.problems import Problem
from experiments_manager.settings.source import Source

REMOVED: dict[str, str] = {
    "tensorflow_addons": (
        "TensorFlow Addons ended in 2024 and cannot be imported with this TensorFlow. Use Keras' own layers, losses, "
        "metrics and optimizers; moving averages of the weights are the setting `ema_momentum`"
    ),
    "tensorflow_model_optimization": (
        "it works with Keras 2 only. Quantise after training, when the model is exported to TensorFlow Lite"
    ),
    "tensorflow.contrib": "it ended with TensorFlow 1. Use the function of the same purpose in `tf` or `keras`",
    "tensorflow.estimator": "estimators are gone. Return a `keras.Model` from `model`; the engine trains it",
    "tensorflow.keras.estimator": "estimators are gone. Return a `keras.Model` from `model`; the engine trains it",
    "tensorflow.train.AdamOptimizer": "write `keras.optimizers.Adam`",
    "tensorflow.keras.optimizers.legacy": "write `keras.optimizers.` and the same name",
    "tensorflow.keras.optimizers.experimental": "write `keras.optimizers.` and the same name",
    "tensorflow.keras.experimental": (
        "write the name without `experimental`: schedules are in `keras.optimizers.schedules`; Keras 3 has no "
        "`LinearModel`, `WideDeepModel` or `SidecarEvaluator`"
    ),
    "tensorflow.keras.layers.experimental.preprocessing": "write `keras.layers.` and the same name",
    "tensorflow.keras.layers.experimental": "write `keras.layers.` and the same name",
    "tensorflow.keras.wrappers": "use the package scikeras, or `keras.wrappers.SKLearnClassifier`",
    "tensorflow.keras.mixed_precision.experimental": "use the setting `mixed_precision`",
}
"""Dotted name, and what to write instead. Whatever begins with such a name is gone with it."""


def removed_names(source: Source) -> list[Problem]:
    """Finds the uses of names that are gone, each with what to write instead."""
    found = {}
    for line, dotted in _dotted_uses(source.tree):
        gone = _longest_match(dotted)
        if gone is not None:
            found.setdefault((line, gone), dotted)
    return [
        source.problem(
            line, dotted, f"this is gone. Expected a name that Keras 3 and TensorFlow 2.21 have: {REMOVED[gone]}."
        )
        for (line, gone), dotted in found.items()
    ]


def _longest_match(dotted: str) -> str | None:
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        if prefix in REMOVED:
            return prefix
    return None


def _dotted_uses(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every import and every dotted expression, by the full name that the imports of the file give it."""
    aliases = dict(_aliases(tree))
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, _canonical(alias.name)) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.lineno, _canonical(f"{node.module}.{alias.name}")) for alias in node.names)
        elif isinstance(node, (ast.Attribute, ast.Name)) and id(node) not in inner:
            parts = _parts(node)
            if parts and parts[0] in aliases:
                yield node.lineno, _canonical(".".join([aliases[parts[0]], *parts[1:]]))


def _aliases(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                yield (alias.asname, alias.name) if alias.asname else (first, first)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _parts(node: ast.AST) -> list[str]:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []


def _canonical(dotted: str) -> str:
    """One spelling for the many ways to reach Keras."""
    for other in ("tensorflow.python.keras", "tensorflow.compat.v1.keras", "tensorflow.compat.v2.keras", "keras"):
        if dotted == other or dotted.startswith(other + "."):
            return "tensorflow.keras" + dotted[len(other) :]
    return dotted
