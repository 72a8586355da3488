"""What hooks give, where the source shows that it cannot do: objects of wrong classes, tensors, keys of no output."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from experiments_manager.common.suggestions import nearest_name
from experiments_manager.settings.lint.inspected import Inspected, own_nodes, written
from experiments_manager.settings.lint.keras_values import given, measured_names
from experiments_manager.settings.problems import Problem
from experiments_manager.settings.source.literals import NotLiteralError
from experiments_manager.settings.source.module_source import bound_names


def tensors_for_models(file: Inspected) -> Iterator[Problem]:
    """Find a `model` that returns the output of a layer."""
    function = file.hooks.get("model")
    for node in own_nodes(function) if function is not None else ():
        value = node.value if isinstance(node, ast.Return) else None
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Call):
            layer = (file.full_name(value.func.func) or "").removeprefix("tensorflow.")
            if layer.startswith("keras.layers."):
                text = (
                    f"it returns the output of the layer {layer.rpartition('.')[2]}, a tensor. Expected a Keras model."
                )
                yield file.problem(node, "model", f"{text} Write `return keras.Model(inputs, outputs)`.")


def objects_for_callbacks(file: Inspected) -> Iterator[Problem]:
    """Find objects under `callbacks` whose class, in this file, derives from nothing."""
    for value in given(file, "callbacks"):
        items = value.elts if isinstance(value, (ast.List, ast.Tuple)) else ()
        for item in [*items, *(value.values if isinstance(value, ast.Dict) else ())]:
            name = getattr(item.func, "id", "") if isinstance(item, ast.Call) else ""
            kind = _class(file, name)
            if kind is not None and not kind.bases and not kind.keywords and not kind.decorator_list:
                text = f"`{name}` (line {kind.lineno}) is no Keras callback. Expected one, got a class without a base."
                yield file.problem(item, "callbacks", f"{text} Write `class {name}(keras.callbacks.Callback)`.")


def incomplete_classes(file: Inspected) -> Iterator[Problem]:
    """Find a `client` that lacks methods, and a module of `serving` that has nothing to serve."""
    client = None if file.is_model_file or not file.dialect.is_strict else _class(file, "client")
    if client is not None and not client.bases:
        missing = [f"`{name}`" for name in ("requests", "on_response") if name not in _members(client)]
        if missing:
            text = f"it has no {' and no '.join(missing)}. Expected the methods `requests()` and "
            yield file.warning(client, "client", f"{text}`on_response(request, outputs)`. Write what is missing.")
    for value in given(file, "serving"):
        kind = _class(file, getattr(value.func, "id", "")) if isinstance(value, ast.Call) else None
        if kind is None or [file.full_name(base) for base in kind.bases] != ["tensorflow.Module"]:
            continue
        if "served_model" not in _members(kind) and "served_model" not in ast.unparse(kind):
            text = f"`{kind.name}` has no `served_model`. Expected a `tf.function` of that name. Rename the one it has."
            yield file.problem(kind, file.given_name("serving"), text)


def unmeasured_logs(file: Inspected) -> Iterator[Problem]:
    """Find keys that callbacks read in the `logs` of an epoch and that nothing measures."""
    measured = measured_names(file) if file.dialect.is_strict else None
    for kind in file.nodes if measured is not None else ():
        if not isinstance(kind, ast.ClassDef) or not any(_is_callback(file, base) for base in kind.bases):
            continue
        for method in kind.body:
            if not isinstance(method, ast.FunctionDef) or method.name != "on_epoch_end":
                continue
            logs = method.args.args[2].arg if len(method.args.args) > 2 else None
            for node in own_nodes(method) if logs else ():
                if isinstance(node, ast.Subscript) and getattr(node.value, "id", None) == logs:
                    yield from _log(file, node, measured or set())


def _log(file: Inspected, node: ast.Subscript, measured: set[str]) -> Iterator[Problem]:
    key = file.text(node.slice)
    extra = {"learning_rate", "lr"}
    if key is None or key in measured | extra or "/" in key or not file.is_certain(node):
        return
    near = nearest_name(key, measured) or next((name for name in sorted(measured) if name.startswith(key)), None)
    hint = f"Did you mean {near!r}?" if near else "Correct it."
    text = f"nothing of this name is measured. Expected one of {', '.join(sorted(measured))}. {hint}"
    yield file.in_doubt(node, written(node), text, (key, near))


def _is_callback(file: Inspected, base: ast.expr) -> bool:
    return (file.full_name(base) or "").endswith("keras.callbacks.Callback")


def _class(file: Inspected, name: str) -> ast.ClassDef | None:
    binding = file.source.last(name)
    node = binding.node if binding is not None and len(file.source.names[name]) == 1 else None
    return node if isinstance(node, ast.ClassDef) else None


def _members(kind: ast.ClassDef) -> set[str]:
    return {name for item in kind.body for name in bound_names(item)}


def constant_learning_rates(file: Inspected) -> Iterator[Problem]:
    """Find functions for `learning_rate` that return what is no number."""
    for node in given(file, "learning_rate"):
        body = node.body if isinstance(node, ast.Lambda) else node
        if body is node and "learning_rate" not in file.hooks:
            continue
        try:
            value = file.value(body)
        except NotLiteralError:
            continue
        if isinstance(value, str):
            text = f"it returns a text. Expected a float above 0, or a Keras schedule, got {value!r}. Correct it."
            yield file.problem(body, file.given_name("learning_rate"), text)
