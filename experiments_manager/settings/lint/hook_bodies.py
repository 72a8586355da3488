"""What hooks do with what they are given: the values they return, splits, `hparams` and `settings`."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator

from experiments_manager.common.suggestions import did_you_mean, nearest_name
from experiments_manager.settings.hooks import HOOKS, HOOKS_BY_ANY_NAME
from experiments_manager.settings.lint.inspected import Function, Inspected, own_nodes, written
from experiments_manager.settings.overrides import ADDED_BY_LAUNCHERS
from experiments_manager.settings.problems import Problem
from experiments_manager.settings.schema import BY_ANY_NAME

RETURNING = ("dataset", "model", "loss", "learning_rate", "optimizer", "augment", "serving", "federated_strategy")
"""Hooks that must return something; from others `None` is taken for nothing of the kind."""
ALSO_RETURNING = ("metrics", "callbacks", "loss_weights", "class_weight", "kafka_decode")
"""Hooks whose only purpose is what they return."""
SPLITS = ("train", "validation", "test")
_METHODS = {
    *(
        "active",
        "asks_for",
        "call",
        "during",
        "file",
        "given_name",
        "has",
        "dialect",
        "first_epoch",
        "hparams",
        "is_function",
    ),
    *(
        "is_given",
        "location",
        "model_file",
        "model_name",
        "module",
        "overrides",
        "place_among",
        "place_of",
    ),
    *("resolve", "run_user_code", "summary", "user_modules", "values", "experiment_settings"),
}


def missing_returns(file: Inspected) -> Iterator[Problem]:
    """Find hooks that end without returning a value."""
    for name, function in file.hooks.items():
        if name not in (*RETURNING, *ALSO_RETURNING) or not isinstance(function, ast.FunctionDef):
            continue
        nodes = list(own_nodes(function))
        kinds = (ast.Yield, ast.YieldFrom, ast.Raise)
        gives = any(isinstance(node, ast.Return) and node.value is not None for node in nodes)
        if gives or any(isinstance(node, kinds) for node in nodes) or _is_placeholder(function):
            continue
        last = function.body[-1]
        hint = f"Write `return {written(last.value)}`." if _is_result(last) else "Add `return` and what it makes."
        text = f"it has no `return`. Expected {_lower(HOOKS[name].doc)}, got None. {hint}"
        yield file.problem(function, function.name, text)


def _is_placeholder(function: ast.FunctionDef) -> bool:
    """Return whether a function holds nothing: it is yet to be written, which whoever calls it says."""
    return all(
        isinstance(item, ast.Pass) or (isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant))
        for item in function.body
    )


def _is_result(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, (ast.Call, ast.List, ast.Tuple, ast.Dict))


def _lower(doc: str) -> str:
    return doc[0].lower() + doc[1:].rstrip(".").partition(". ")[0]


def wrong_splits(file: Inspected) -> Iterator[Problem]:
    """Find comparisons of the parameter `split` with what it never is, and tables that lack one of its values."""
    for node in file.nodes:
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and _is_given(file, node.left, "split"):
            other = node.comparators[0]
            is_equality = isinstance(node.ops[0], (ast.Eq, ast.NotEq)) and isinstance(other, ast.Constant)
            if is_equality and isinstance(other.value, str) and other.value not in SPLITS:
                text = f"`split` is never {other.value!r}. Expected one of {_quoted(SPLITS)}. {_nearest(other.value)}"
                yield file.problem(node, written(node), text)
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Dict):
            keys = [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
            if _is_given(file, node.slice, "split") and len(keys) == len(node.value.keys) and keys:
                missing = [split for split in SPLITS[:2] if split not in keys]
                if missing and any(isinstance(key, str) and key not in SPLITS for key in keys):
                    text = (
                        f"this table has no key {_quoted(missing)}. Expected the values of `split`, {_quoted(SPLITS)}."
                    )
                    yield file.problem(node, "split", f"{text} Rename the keys.")


def _nearest(word: str) -> str:
    near = next((split for split in SPLITS if word and split.startswith(word[:3].lower())), None)
    return f"Did you mean {near!r}?" if near else "Correct it."


def _quoted(words: Collection[str]) -> str:
    return ", ".join(map(repr, words))


def _is_given(file: Inspected, node: ast.AST, parameter: str) -> bool:
    """Return whether an expression is a parameter that the engine gives to a hook, which does not bind it anew."""
    if not isinstance(node, ast.Name) or node.id != parameter:
        return False
    around = file.functions_around(node)
    return len(around) == 1 and around[0] in file.hooks.values() and _keeps(around[0], parameter)


def _keeps(function: Function, parameter: str) -> bool:
    asked = {argument.arg for argument in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)}
    stored = {node.id for node in own_nodes(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return parameter in asked and parameter not in stored


def unknown_attributes(file: Inspected) -> Iterator[Problem]:
    """Find attributes of the parameter `settings` that no setting has."""
    known = {*BY_ANY_NAME, *HOOKS_BY_ANY_NAME, *file.dialect.attributes, *_METHODS}
    set_here = {node.attr for node in file.nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    for node in file.nodes:
        if not (isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)) or node.attr in known | set_here:
            continue
        if node.attr.startswith("_") or not _is_given(file, node.value, "settings"):
            continue
        hint = did_you_mean(node.attr, known, "`experiments_manager settings` lists them.", shown="`settings.{}`")
        yield file.problem(node, written(node), f"there is no such setting. Expected the name of one. {hint}")


def unknown_hparams(file: Inspected) -> Iterator[Problem]:
    """Find keys of `hparams` that it does not have."""
    hparams = file.hparams
    if hparams is None or not file.dialect.is_strict:
        return
    changed = _keys_added(file)
    if changed is None:
        return
    known = {*hparams, *changed, *ADDED_BY_LAUNCHERS}
    for node in file.nodes:
        if not (isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and _is_hparams(file, node.value)):
            continue
        key = node.slice.value if isinstance(node.slice, ast.Constant) else None
        if not isinstance(key, str) or key in known or _asked_before(file, key):
            continue
        has = f"It has {_quoted([str(item) for item in hparams])}." if hparams else "It is empty."
        near = nearest_name(key, map(str, hparams))
        hint = f"Did you mean {near!r}?" if near else has
        yield file.problem(node, f"hparams[{key!r}]", f"`hparams` has no such key. {hint}", (key, near))


def _is_hparams(file: Inspected, node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute) and node.attr == "hparams":
        return _is_given(file, node.value, "settings")
    if not (isinstance(node, ast.Name) and node.id == "hparams"):
        return False
    around = file.functions_around(node)
    return (
        bool(around) and file.hparams_of(around) and not (file.is_model_file and not _is_given(file, node, "hparams"))
    )


def _keys_added(file: Inspected) -> set[str] | None:
    """Return keys that are assigned to any dictionary; `None` where `hparams` may get others."""
    added = set()
    for node in ast.walk(file.source.tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            if isinstance(node.slice, ast.Constant):
                added.add(node.slice.value)
            elif "hparams" in ast.unparse(node.value):
                return None
        elif isinstance(node, ast.Call) and re.search(r"hparams\b.*\.(update|setdefault)$", ast.unparse(node.func)):
            return None
    return added


def _asked_before(file: Inspected, key: str) -> bool:
    """Return whether the file asks somewhere whether there is such a key."""
    return any(
        isinstance(node, ast.Compare)
        and isinstance(node.left, ast.Constant)
        and node.left.value == key
        and isinstance(node.ops[0], (ast.In, ast.NotIn))
        for node in ast.walk(file.source.tree)
    )


def growing_defaults(file: Inspected) -> Iterator[Problem]:
    """Find defaults of parameters that are lists or dictionaries, and that the function changes."""
    for function in file.nodes:
        if not isinstance(function, ast.FunctionDef):
            continue
        by_position = [*function.args.posonlyargs, *function.args.args]
        pairs = zip(by_position[len(by_position) - len(function.args.defaults) :], function.args.defaults, strict=True)
        for argument, default in pairs:
            if isinstance(default, (ast.List, ast.Dict, ast.Set)) and _changes(function, argument.arg):
                text = "its default is changed, and is the same object in each call. Expected a new one. Write "
                yield file.warning(default, argument.arg, f"{text}`{argument.arg}=None`, and make it in the function.")


def _changes(function: ast.FunctionDef, name: str) -> bool:
    nodes = list(own_nodes(function))
    if any(isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store) for node in nodes):
        return False
    changing = ("append", "extend", "insert", "update", "setdefault", "add", "pop", "clear")
    return any(
        isinstance(node, ast.Attribute) and node.attr in changing and getattr(node.value, "id", None) == name
        for node in nodes
    )
