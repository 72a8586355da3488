"""What stands under `loss`, `optimizer`, `metrics` and `monitor`, and what hooks of these names return."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from experiments_manager.common.suggestions import nearest_name
from experiments_manager.settings.keras.table import keras_table
from experiments_manager.settings.lint.inspected import Inspected, own_nodes
from experiments_manager.settings.lint.keras_uses import METRICS_OF_COMPILE, nearest_text, own_registered, unknown_text
from experiments_manager.settings.problems import Problem
from experiments_manager.settings.source.literals import NotLiteralError

_KINDS = {"loss": "loss", "optimizer": "optimizer", "metrics": "metric"}
_LEARNING_RATES = "keras.optimizers.schedules."


def unknown_names(file: Inspected) -> Iterator[Problem]:
    """Find texts that Keras resolves to nothing, as values of settings and as what hooks return."""
    own = own_registered(file)
    for name, kind in _KINDS.items():
        for node in given(file, name):
            for item in _texts(file, node):
                text = file.text(item)
                if text is None or text.lower() in file.dialect.keras_names:
                    continue
                wrong = unknown_text(text, kind, own)
                if wrong and file.dialect.keras_names and kind == "metric" and unknown_text(text, "loss", own) is None:
                    continue
                if wrong:
                    yield file.problem(item, file.given_name(name), wrong, (text, nearest_text(text, kind)))


def classes_for_objects(file: Inspected) -> Iterator[Problem]:
    """Find classes of schedules, optimizers and metrics where an object of them is meant."""
    table = keras_table()
    if table is None:
        return
    metrics = table.subclasses("metrics.Metric")
    for name in ("learning_rate", "optimizer", "metrics"):
        for node in given(file, name):
            for item in [node, *_items(node)]:
                dotted = (file.full_name(item) or "").removeprefix("tensorflow.")
                room, _, last = dotted.rpartition(".")
                known = last[:1].isupper() and (
                    (name == "learning_rate" and dotted.startswith(_LEARNING_RATES))
                    or (name == "optimizer" and room == "keras.optimizers" and last != "Optimizer")
                    or (name == "metrics" and dotted in metrics)
                )
                if known:
                    text = f"Expected an object, got the class {last}. Write `{last}()`, with its arguments."
                    yield file.problem(item, file.given_name(name), text)


def given(file: Inspected, name: str) -> Iterator[ast.expr]:
    """Yield the expressions that a setting or hook of a canonical name comes to."""
    if file.is_model_file:
        return
    if name in file.hooks:
        function = file.hooks[name]
        if (
            name == "loss"
            and len(function.args.args) == 2
            and function.args.args[0].arg not in ("model", "settings", "hparams")
        ):
            return  # a loss of the user's, which returns numbers
        for node in own_nodes(function):
            if isinstance(node, ast.Return) and node.value is not None:
                yield from _alternatives(node.value)
        return
    bindings = file.source.names.get(name, ())
    for binding in bindings:
        if isinstance(binding.node, ast.expr):
            yield from _alternatives(binding.node)


def _alternatives(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.IfExp):
        yield from _alternatives(node.body)
        yield from _alternatives(node.orelse)
    else:
        yield node


def _items(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, (ast.List, ast.Tuple)):
        return [inner for item in node.elts for inner in (item, *_items(item))]
    if isinstance(node, ast.Dict):
        return [inner for item in node.values for inner in (item, *_items(item))]
    return []


def _texts(file: Inspected, node: ast.expr) -> Iterator[ast.expr]:
    yield from (item for item in (node, *_items(node)) if file.text(item) is not None)


def classes_and_units(file: Inspected) -> Iterator[Problem]:
    """Find a last layer of a classification that has another number of units than there are classes."""
    classes = file.names.get("class_names")
    losses = [file.text(node) or "" for node in given(file, "loss")]
    function = file.hooks.get("model")
    if not isinstance(classes, list) or function is None or len(losses) != 1 or "categorical_cross" not in losses[0]:
        return
    heads = [
        node
        for node in own_nodes(function)
        if isinstance(node, ast.Call) and (file.full_name(node.func) or "").endswith("keras.layers.Dense")
        if any(item.arg == "activation" and file.text(item.value) == "softmax" for item in node.keywords)
    ]
    units = _units(file, heads[0]) if len(heads) == 1 else None
    if units is not None and units != len(classes):
        text = (
            f"there are {len(classes)} names for the {units} classes of the model (line {heads[0].lineno}). Expected "
        )
        yield file.problem(file.source.line("class_names") or 1, "class_names", f"{text}a name for each. Correct one.")


def _units(file: Inspected, dense: ast.Call) -> int | None:
    given = [item.value for item in dense.keywords if item.arg == "units"] or dense.args[:1]
    try:
        value = file.value(given[0]) if given else None
    except NotLiteralError:
        return None
    return value if isinstance(value, int) else None


# --- what is watched --------------------------------------------------------------------------------------------


def unknown_monitors(file: Inspected) -> Iterator[Problem]:
    """Find watched values that no metric of the file gives, where all that is measured shows in the source."""
    if file.is_model_file or not file.dialect.is_strict:
        return
    measured = measured_names(file)
    if measured is None:
        return
    for name, node in _monitors(file):
        text = file.text(node)
        if text is None or "/" in text or text.startswith("prequential_"):
            continue
        if text not in measured:
            near = nearest_name(text, measured) or _same_metric(text, measured)
            hint = f"Did you mean {near!r}?" if near else "Add it to `metrics`, or watch another."
            said = f"nothing of the name {text!r} is measured. Expected one of {', '.join(sorted(measured))}. {hint}"
            yield file.problem(node, name, said, (text, near))


def _same_metric(text: str, measured: Iterable[str]) -> str | None:
    base = text.removeprefix("val_")
    near = sorted(name for name in measured if name.removeprefix("val_").startswith(base))
    near = [name for name in near if name.startswith("val_") == text.startswith("val_")]
    return near[0] if near else None


def _monitors(file: Inspected) -> Iterator[tuple[str, ast.expr]]:
    for binding in file.source.names.get("monitor", ()):
        if isinstance(binding.node, ast.expr):
            yield "monitor", binding.node
    for node in file.nodes:
        if isinstance(node, ast.Call) and "keras.callbacks." in (file.full_name(node.func) or ""):
            for keyword in node.keywords:
                if keyword.arg == "monitor":
                    yield f"{ast.unparse(node.func)}(monitor=…)", keyword.value


def measured_names(file: Inspected) -> set[str] | None:
    """Return the names of all that is measured, `None` where the source does not show them all."""
    names = _names_of_metrics(file)
    if names is None or not _has_one_loss(file) or _measures_itself(file):
        return None
    both = {"loss", *names}
    return both | {f"val_{name}" for name in both}


def _has_one_loss(file: Inspected) -> bool:
    nodes = list(given(file, "loss"))
    return bool(nodes) and not any(isinstance(node, (ast.Dict, ast.List, ast.Tuple)) for node in nodes)


def _measures_itself(file: Inspected) -> bool:
    """Return whether model or callbacks of the user's own may log what is not in `metrics`."""
    words = ("train_step", "def metrics", "add_metric", "compute_metrics", "compute_loss")
    text = file.source.text + file.companion
    return any(word in text for word in words) or "logs" in file.companion or any(map(_writes_logs, file.nodes))


def _writes_logs(node: ast.AST) -> bool:
    """Return whether something may be put into `logs`: it is assigned to, or handed to whoever may do so."""
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
        return "logs" in ast.unparse(node.value)
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return any("callback" in alias.name.lower() and not _of_keras(node) for alias in node.names)
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") == "logs":
            return node.func.attr in ("update", "setdefault", "__setitem__")
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        reads = getattr(node.func, "id", "") in ("print", "dict", "list", "sorted", "len", "str", "repr", "float")
        return not reads and any(getattr(value, "id", "") == "logs" for value in values)
    return False


def _of_keras(node: ast.Import | ast.ImportFrom) -> bool:
    names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
    return any(name.partition(".")[0] in ("keras", "tensorflow") for name in names)


def _names_of_metrics(file: Inspected) -> list[str] | None:
    if file.source.last("metrics") is None:
        return [] if not file.source.may_bind("metrics") else None
    nodes = list(given(file, "metrics"))
    if len(nodes) != 1 or not isinstance(nodes[0], (ast.List, ast.Tuple)):
        return None
    found = []
    for item in nodes[0].elts:
        name = file.text(item) or _name_of_object(file, item)
        if name is None:
            return None
        if isinstance(item, ast.Constant) and unknown_text(name, "metric", own_registered(file)):
            name = nearest_name(name, METRICS_OF_COMPILE) or name  # which is reported at its own place
        found.append(name)
    return found


def _name_of_object(file: Inspected, node: ast.expr) -> str | None:
    if not isinstance(node, ast.Call) or not (file.full_name(node.func) or "").startswith(
        ("keras.metrics.", "tensorflow.keras.metrics.")
    ):
        return None
    return next((file.text(item.value) for item in node.keywords if item.arg == "name"), None)
