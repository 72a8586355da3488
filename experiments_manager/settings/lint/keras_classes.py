"""Classes that derive from those of Keras: methods that Keras calls otherwise than they are written."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from experiments_manager.common.suggestions import nearest_name
from experiments_manager.settings.keras.table import KerasTable, keras_table
from experiments_manager.settings.lint.inspected import Inspected, own_nodes
from experiments_manager.settings.problems import Problem
from experiments_manager.settings.source.module_source import bound_names as names_of_statement

_INDEXED = ("epoch_begin", "epoch_end", "batch_begin", "batch_end", "train_batch_begin", "train_batch_end")
_OTHERS = ("test_batch_begin", "test_batch_end", "predict_batch_begin", "predict_batch_end")
_WHOLE = ("train_begin", "train_end", "test_begin", "test_end", "predict_begin", "predict_end")

_CALLED_WITH: dict[str, dict[str, tuple[str, ...]]] = {
    "layers.Layer": {
        **{"call": ("inputs",), "build": ("input_shape",), "compute_output_shape": ("input_shape",), "get_config": ()},
    },
    "Model": {"call": ("inputs",), "train_step": ("data",), "test_step": ("data",), "get_config": ()},
    "losses.Loss": {"call": ("y_true", "y_pred"), "get_config": ()},
    "metrics.Metric": {"update_state": ("y_true", "y_pred", "sample_weight"), "result": (), "reset_state": ()},
    "callbacks.Callback": {
        **{f"on_{name}": ("epoch" if "epoch" in name else "batch", "logs") for name in (*_INDEXED, *_OTHERS)},
        **{f"on_{name}": ("logs",) for name in _WHOLE},
        "set_model": ("model",),
    },
    "utils.PyDataset": {"__getitem__": ("index",), "__len__": (), "on_epoch_end": ()},
}  # fmt: skip
"""For what users derive from: the methods that Keras calls, with what it gives them after `self`."""

_RETURNING = ("call", "result", "get_config", "compute_output_shape", "train_step", "test_step")
_NEED_SUPER = ("layers.Layer", "Model", "losses.Loss", "metrics.Metric")
_BINDS_UNSEEN = {"__getattr__", "__getattribute__", "__dict__", "setattr", "vars"}
_BY_INPUTS = 1


def wrong_methods(file: Inspected) -> Iterator[Problem]:
    """Find methods that Keras cannot call, that return nothing, and constructors that leave out the base's own."""
    table = keras_table()
    if table is None:
        return
    for kind in file.nodes:
        if isinstance(kind, ast.ClassDef):
            root = _root(file, table, kind)
            if root is not None:
                yield from _methods(file, kind, root)
                if root in _NEED_SUPER:
                    yield from _constructor(file, kind, root)
                if root == "utils.PyDataset":
                    yield from _without_length(file, kind)


def unknown_attributes_of_self(file: Inspected) -> Iterator[Problem]:
    """Find attributes of `self` that nothing sets, in classes that derive from nothing but one of Keras' own."""
    table = keras_table()
    if table is None:
        return
    everywhere = list(ast.walk(file.source.tree))  # `if not hasattr(self, …)` and `except AttributeError` set some, too
    bases = {ast.unparse(base) for kind in everywhere if isinstance(kind, ast.ClassDef) for base in kind.bases}
    stored = {node.attr for node in everywhere if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    for kind in file.nodes:
        if not isinstance(kind, ast.ClassDef) or kind.name in bases or kind.keywords or not file.dialect.is_strict:
            continue
        root = _root(file, table, kind)
        if root is None and (kind.bases or kind.decorator_list):
            continue
        nodes = list(ast.walk(kind))
        if any(_name(node) in _BINDS_UNSEEN for node in nodes):
            continue
        own = {name for item in kind.body for name in names_of_statement(item)}
        texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        known = {*own, *stored, *(table.attributes(root) if root else ())}
        for node in _loads_of_self(kind):
            if node.attr not in known | texts and not node.attr.startswith("_") and file.is_certain(node):
                near = nearest_name(node.attr, known)
                hint = f"Did you mean `self.{near}`?" if near else "Set it in `__init__`, or correct the name."
                text = f"nothing sets it. Expected an attribute or a method that `{kind.name}` has. {hint}"
                yield file.in_doubt(node, f"self.{node.attr}", text, (node.attr, near))


def _name(node: ast.AST) -> str:
    return str(getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "name", None) or "")


def _loads_of_self(kind: ast.ClassDef) -> Iterator[ast.Attribute]:
    """Yield what methods read of `self`, each name once."""
    seen: set[str] = set()
    for method in kind.body:
        if not isinstance(method, ast.FunctionDef) or not method.args.args or method.args.args[0].arg != "self":
            continue
        for node in ast.walk(method):
            is_load = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
            if is_load and getattr(node.value, "id", "") == "self" and node.attr not in seen:
                seen.add(node.attr)
                yield node


def _without_length(file: Inspected, kind: ast.ClassDef) -> Iterator[Problem]:
    own = {name for item in kind.body for name in names_of_statement(item)}
    if "__getitem__" in own and not own & {"__len__", "num_batches"}:
        text = "it has no `__len__`. Expected the number of its batches, got none. Add `def __len__(self)`."
        yield file.problem(kind, kind.name, text)


def _root(file: Inspected, table: KerasTable, kind: ast.ClassDef) -> str | None:
    """Return what a class derives from, where Keras' own class is its only base."""
    if len(kind.bases) != 1 or kind.decorator_list and not _registers(kind):
        return None
    base = (file.full_name(kind.bases[0]) or "").removeprefix("tensorflow.")
    if base in ("keras.Model", "keras.models.Model"):
        return "Model"
    for root in _CALLED_WITH:
        if base in (f"keras.{root}", f"keras.{root.rpartition('.')[2]}") and base in table.subclasses(root):
            return root
    return None


def _registers(kind: ast.ClassDef) -> bool:
    return all("register_keras_serializable" in ast.unparse(item) for item in kind.decorator_list)


def _methods(file: Inspected, kind: ast.ClassDef, root: str) -> Iterator[Problem]:
    for method in kind.body:
        if not isinstance(method, ast.FunctionDef) or method.decorator_list:
            continue
        given = _CALLED_WITH[root].get(method.name)
        name = f"{kind.name}.{method.name}"
        if given is not None:
            yield from _parameters(file, method, name, given)
        elif not (method.args.posonlyargs or method.args.args or method.args.vararg):
            text = (
                "it has no parameter `self`, which each call of the method gives. Write it first, or `@staticmethod`."
            )
            yield file.problem(method, name, text)
        if given is not None and method.name in _RETURNING and _returns_nothing(method):
            yield file.problem(
                method, name, "it has no `return`. Expected the value that Keras asks for, got None. Add it."
            )


def _parameters(file: Inspected, method: ast.FunctionDef, name: str, given: tuple[str, ...]) -> Iterator[Problem]:
    arguments = method.args
    names = [item.arg for item in (*arguments.posonlyargs, *arguments.args)]
    if arguments.vararg is not None:
        return
    by_name = {item.arg for item in arguments.kwonlyargs}
    enough = len(names) + len(by_name.intersection(given)) + (arguments.kwarg is not None) * len(given)
    wanted = ("self", *given)
    if not names or (names[0] != "self" and len(names) < len(wanted)):
        text = f"it lacks the parameter `self`. Expected {', '.join(wanted)}, got {', '.join(names) or 'none'}."
        yield file.problem(method, name, f"{text} Write `self` first.")
    elif enough < len(wanted) and not (
        wanted[1:] == ("y_true", "y_pred", "sample_weight") and enough == len(wanted) - 1
    ):
        text = f"it takes too few parameters. Expected {', '.join(wanted)}, got {', '.join(names)}."
        missing = [item for item in wanted if item not in names]
        yield file.problem(method, name, f"{text} Add `{'`, `'.join(missing)}`.")
    else:
        required = names[: len(names) - len(arguments.defaults)]
        most = len(wanted) + (method.name == "call") * 8 + (method.name == "build") * 8
        if len(required) > most:
            text = f"it needs more than Keras gives. Expected {', '.join(wanted)}, got {', '.join(required)}."
            yield file.problem(method, name, f"{text} Give the others defaults.")


def _returns_nothing(method: ast.FunctionDef) -> bool:
    nodes = list(own_nodes(method))
    gives = (ast.Yield, ast.YieldFrom, ast.Raise)
    return not any(
        isinstance(node, gives) or (isinstance(node, ast.Return) and node.value is not None) for node in nodes
    )


def _constructor(file: Inspected, kind: ast.ClassDef, root: str) -> Iterator[Problem]:
    own = [item for item in kind.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
    if not own or not own[-1].args.args:
        return
    nodes = list(own_nodes(own[-1]))
    calls = [node for node in nodes if isinstance(node, ast.Attribute) and node.attr == "__init__"]
    assigned = [
        node
        for node in nodes
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and getattr(node.value, "id", "") == "self"
    ]
    if assigned and not calls:
        first = min(assigned, key=lambda node: node.lineno)
        text = "the constructor of the base is not called before. Expected `super().__init__()` first in `__init__`."
        yield file.problem(first, f"{kind.name}.__init__", f"{text} Add it.")
