"""Names that Keras 3 took away but offers under another one: files of the legacy framework keep the old ones.

The syntax tree is changed before it is executed, so that `tf.keras.metrics.mean_squared_error` is read as
`tf.keras.metrics.MSE`. The file itself, Keras and TensorFlow stay as they are, and nothing is imported.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import logging
from collections.abc import Iterable
from pathlib import Path

from experiments_manager.settings.problems import problem_at
from experiments_manager.settings.source.dotted_names import (
    KERAS_IN_TENSORFLOW,
    below_keras,
    full_name,
    guarded_imports,
    import_aliases,
    longest_prefix,
)
from experiments_manager.settings.source.module_source import Source

_log = logging.getLogger(__name__)

_SHORT_NAMES = {
    "kl_divergence": "KLD",
    "log_cosh": "logcosh",
    "mean_absolute_error": "MAE",
    "mean_absolute_percentage_error": "MAPE",
    "mean_squared_error": "MSE",
    "mean_squared_logarithmic_error": "MSLE",
}
"""Functions of losses and metrics that `tf.keras` has by the short name alone, and `keras` by the long one."""

_OTHER_SHORT_NAMES = {"kullback_leibler_divergence": "kl_divergence"}

_UTILITIES = (
    "custom_object_scope",
    "deserialize_keras_object",
    "get_custom_objects",
    "get_registered_name",
    "get_registered_object",
    "register_keras_serializable",
    "serialize_keras_object",
)


def _renamed_everywhere() -> dict[str, str]:
    schedules = ("CosineDecay", "CosineDecayRestarts")
    return {
        "optimizers.legacy": "optimizers",
        "optimizers.experimental": "optimizers",
        "layers.experimental.preprocessing": "layers",
        "layers.experimental.EinsumDense": "layers.EinsumDense",
        "layers.CuDNNLSTM": "layers.LSTM",
        "layers.CuDNNGRU": "layers.GRU",
        **{f"experimental.{name}": f"optimizers.schedules.{name}" for name in schedules},
    }


def _renamed_in_tensorflow() -> dict[str, str]:
    return {
        **{
            f"{room}.{long}": f"{room}.{short}"
            for room in ("losses", "metrics")
            for long, short in _SHORT_NAMES.items()
        },
        **{f"saving.{name}": f"utils.{name}" for name in _UTILITIES},
        **{f"saving.{name}": f"models.{name}" for name in ("load_model", "save_model")},
    }


def _renamed_in_keras() -> dict[str, str]:
    """Name below `keras` itself that Keras 2 had and Keras 3 has elsewhere; with the full new name."""
    shorts = {spelt: long for long, short in _SHORT_NAMES.items() for spelt in (short, short.lower())}
    losses = shorts | _OTHER_SHORT_NAMES
    rooms = ("losses", "metrics")
    functions = {f"keras.{room}.{short}": f"keras.losses.{long}" for room in rooms for short, long in losses.items()}
    return functions | {"keras.backend": "tensorflow.keras.backend"}


RENAMED: dict[str, str] = {
    **{
        f"{root}.{old}": f"{root}.{new}"
        for root in ("keras", *KERAS_IN_TENSORFLOW)
        for old, new in _renamed_everywhere().items()
    },
    **{
        f"{root}.{old}": f"{root}.{new}"
        for root in KERAS_IN_TENSORFLOW
        for old, new in _renamed_in_tensorflow().items()
    },
    **_renamed_in_keras(),
}
"""Full old names and what is read in their place. Whatever begins with an old name follows it."""

RENAMED_ARGUMENTS: dict[tuple[str, str], str] = {("optimizers", "lr"): "learning_rate"}
"""Keyword arguments below a name of Keras, and how they are called now."""

POSITIONAL_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "layers.Layer": ("trainable", "name", "dtype"),
    "losses.Loss": ("reduction", "name"),
    "metrics.Metric": ("name", "dtype"),
}
"""Classes of Keras whose constructors take arguments in another order now, or by name alone, and the order they had."""


@dataclasses.dataclass(frozen=True)
class Replacement:
    """One name that was replaced.

    Attributes:
        line: Its line.
        old: As the file writes it.
        new: What is read in its place, in the words of the file.
    """

    line: int
    old: str
    new: str


def with_renamed(source: Source) -> Source:
    """Return the source with the names that Keras 3 has; each replaced one is logged as a warning."""
    tree, replaced = rename(source.tree)
    log_replaced(source.file, replaced)
    return dataclasses.replace(source, tree=tree) if replaced else source


def log_replaced(file: Path, replaced: Iterable[Replacement]) -> None:
    """Warn of what was replaced in a file."""
    for item in replaced:
        place = problem_at(file, item.line, "", "").place
        _log.warning("%s: %s is not in Keras 3: %s is used instead. Replace it in the file.", place, item.old, item.new)


def rename(tree: ast.Module) -> tuple[ast.Module, list[Replacement]]:
    """Replace the old names in a syntax tree.

    Args:
        tree: Stays as it is.

    Returns:
        A tree with the new names, and each old name once, in the order of the lines.
    """
    renamer = _Renamer(tree)
    if not renamer.concerns(tree):
        return tree, []
    # The nodes of guarded imports are known by their identity, so what is walked is the copy.
    tree = copy.deepcopy(tree)
    renamer = _Renamer(tree)
    changed = ast.fix_missing_locations(renamer.visit(tree))
    once = {item.old: item for item in sorted(renamer.replaced, key=lambda item: -item.line)}
    return changed, sorted(once.values(), key=lambda item: item.line)


class _Renamer(ast.NodeTransformer):
    def __init__(self, tree: ast.Module) -> None:
        self._guarded = guarded_imports(tree)
        self._aliases = dict(import_aliases(tree, self._guarded))
        self.replaced: list[Replacement] = []

    def concerns(self, tree: ast.Module) -> bool:
        """Return whether the file imports anything of Keras at all, which most modules do not."""
        return any(full.partition(".")[0] in ("keras", "tensorflow") for full in self._aliases.values())

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:  # noqa: N802  (the name that `ast` calls)
        dotted = full_name(node, self._aliases)
        if dotted is None:
            return self.generic_visit(node)
        new = _new_name(dotted)
        alias = _first_name(node)
        if new is None or _old_name(self._aliases[alias]) == _old_name(dotted):
            return node  # in the second case the import that binds the alias is what is replaced
        changed = ast.copy_location(_expression(new, alias, self._aliases[alias]), node)
        self.replaced.append(Replacement(node.lineno, ast.unparse(node), _written(changed, new)))
        return changed

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | list[ast.AST]:  # noqa: N802
        if id(node) in self._guarded or not node.module or node.level:
            return node
        kept, moved = [], []
        for item in node.names:
            new = _new_name(f"{node.module}.{item.name}")
            if new is None:
                kept.append(item)
                continue
            module, _, name = new.rpartition(".")
            alias = ast.alias(name=name, asname=item.asname or item.name)
            moved.append(ast.copy_location(ast.ImportFrom(module=module, names=[alias], level=0), node))
            self.replaced.append(Replacement(node.lineno, f"{node.module}.{item.name}", new))
        if not moved:
            return node
        rest = [ast.copy_location(ast.ImportFrom(module=node.module, names=kept, level=0), node)] if kept else []
        return [*rest, *moved]

    def visit_Import(self, node: ast.Import) -> ast.AST:  # noqa: N802
        if id(node) in self._guarded:
            return node
        for item in node.names:
            new = _new_name(item.name)
            if new is not None:
                self.replaced.append(Replacement(node.lineno, item.name, new))
                package = item.name.partition(".")[0]
                # Without `as`, the import binds the package, whose name must stay the one that the file uses.
                item.name = new if item.asname or new.startswith(f"{package}.") else package
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:  # noqa: N802
        dotted = full_name(node.func, self._aliases)
        _, name = (below_keras(dotted) if dotted else None) or ("", "")
        written = ast.unparse(node.func)
        changed = self.generic_visit(node)
        for keyword in node.keywords:
            for (below, old), new in RENAMED_ARGUMENTS.items():
                if keyword.arg == old and f"{name}.".startswith(f"{below}."):
                    keyword.arg = new
                    self.replaced.append(Replacement(node.lineno, f"{written}({old}=…)", f"{written}({new}=…)"))
        if f"{name}.".startswith("optimizers."):
            self._replace_decay(node, written)
        return changed

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:  # noqa: N802
        for base in node.bases:
            dotted = full_name(base, self._aliases)
            _, name = (below_keras(dotted) if dotted else None) or ("", "")
            if name in POSITIONAL_ARGUMENTS:
                self._name_arguments(node, ast.unparse(base), POSITIONAL_ARGUMENTS[name])
        return self.generic_visit(node)

    def _name_arguments(self, node: ast.ClassDef, base: str, names: tuple[str, ...]) -> None:
        """Give names to what a class passes to its base by position, as in `super().__init__(name)`."""
        constructors = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
        calls = [call for item in constructors for call in ast.walk(item) if isinstance(call, ast.Call)]
        for call in calls:
            if not isinstance(call.func, ast.Attribute) or call.func.attr != "__init__":
                continue
            by_class = ast.unparse(call.func.value) == base  # Metric.__init__(self, name)
            given = call.args[by_class:]
            is_super = isinstance(call.func.value, ast.Call) and ast.unparse(call.func.value.func) == "super"
            if not given or not (by_class or is_super) or any(isinstance(value, ast.Starred) for value in given):
                continue
            named = [ast.keyword(name, value) for name, value in zip(names, given, strict=False)]
            self.replaced.append(Replacement(call.lineno, ast.unparse(call), f"{base} with {', '.join(names)} by name"))
            call.args, call.keywords = call.args[:by_class], [*named, *call.keywords]

    def _replace_decay(self, node: ast.Call, written: str) -> None:
        """Turn `decay=d` of an optimizer into the schedule with which Keras 2 divided the rate by `1 + d * step`."""
        decay = next((keyword for keyword in node.keywords if keyword.arg == "decay"), None)
        if decay is None:
            return
        node.keywords.remove(decay)
        rate = next((keyword for keyword in node.keywords if keyword.arg == "learning_rate"), None)
        if (isinstance(decay.value, ast.Constant) and not decay.value.value) or not (rate or node.args):
            return
        schedule = _expression("keras.optimizers.schedules.InverseTimeDecay", "", "")
        before = rate.value if rate else node.args[0]
        after = ast.copy_location(ast.Call(schedule, [before, ast.Constant(1), decay.value], []), node)
        if rate:
            rate.value = after
        else:
            node.args[0] = after
        self.replaced.append(Replacement(node.lineno, f"{written}(decay=…)", "the schedule InverseTimeDecay"))


def _old_name(dotted: str) -> str | None:
    return longest_prefix(dotted, RENAMED)


def _new_name(dotted: str) -> str | None:
    old = _old_name(dotted)
    return None if old is None else RENAMED[old] + dotted[len(old) :]


def _first_name(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _expression(dotted: str, alias: str, stands_for: str) -> ast.expr:
    """Reach a full name from an alias of the file where that leads there, else from the imported package."""
    if alias and dotted.startswith(f"{stands_for}."):
        root, rest = ast.Name(alias, ast.Load()), dotted[len(stands_for) + 1 :].split(".")
    else:
        package, *rest = dotted.split(".")
        root = ast.Call(ast.Name("__import__", ast.Load()), [ast.Constant(package)], [])
    for part in rest:
        root = ast.Attribute(root, part, ast.Load())
    return root


def _written(node: ast.expr, dotted: str) -> str:
    return dotted if isinstance(_root(node), ast.Call) else ast.unparse(node)


def _root(node: ast.expr) -> ast.expr:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node
