"""Uses of Keras and TensorFlow by names, keywords and texts that these do not know."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from experiments_manager.common.suggestions import nearest_name
from experiments_manager.dialects import plugins
from experiments_manager.settings.keras.table import CallSignature, KerasTable, keras_table
from experiments_manager.settings.lint.inspected import Inspected, written
from experiments_manager.settings.problems import Problem, shown
from experiments_manager.settings.source.dotted_names import below_keras
from experiments_manager.settings.source.literals import NotLiteralError

ROOTS = ("keras", "tensorflow")
METRICS_OF_COMPILE = frozenset({"accuracy", "acc", "crossentropy", "ce"})
"""Metrics that Keras makes out of the loss and the shapes."""
_SHOWN = 12


def unknown_members(file: Inspected) -> Iterator[Problem]:
    """Find attributes of modules of Keras and TensorFlow that these do not have."""
    table = keras_table()
    if table is None:
        return
    inner = {id(node.value) for node in file.nodes if isinstance(node, ast.Attribute)}
    stored = {
        file.full_name(node)
        for node in file.nodes
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load)
    }
    for node in file.nodes:
        if not isinstance(node, ast.Attribute) or id(node) in inner or not isinstance(node.ctx, ast.Load):
            continue
        dotted = file.full_name(node) or ""
        missing = missing_part(table, dotted)
        if missing is None or dotted in stored or is_removed(file, dotted):
            continue
        module, name = missing
        shorter = _prefix(node, dotted, f"{module}.{name}")
        text = missing_text(table, module, name, shorter.rpartition(".")[0])
        yield file.problem(node, shorter, text, (name, meant_member(table, module, name)))


def _prefix(node: ast.Attribute, dotted: str, wanted: str) -> str:
    """Return as much of an attribute as stands for the beginning of its full name, as it is written."""
    part: ast.expr = node
    for _ in range(dotted.count(".") - wanted.count(".")):
        part = part.value if isinstance(part, ast.Attribute) else part
    return written(part)


def missing_part(table: KerasTable, dotted: str) -> tuple[str, str] | None:
    """Return the module and the name in it where a full name leaves what there is; `None` where all is there."""
    parts = dotted.split(".")
    if parts[0] not in ROOTS:
        return None
    for length in range(1, len(parts)):
        module, name = ".".join(parts[:length]), parts[length]
        members = table.members(module)
        if members is None or name.startswith("_"):
            return None
        if name not in members:
            return module, name
    return None


def missing_text(table: KerasTable, module: str, name: str, as_written: str) -> str:
    """Say that a module has no such name."""
    near = meant_member(table, module, name)
    hint = f"Did you mean `{as_written}.{near}`?" if near else _elsewhere(table, module, name)
    return f"there is no such name in Keras or TensorFlow. Expected one of `{module}`. {hint}"


def meant_member(table: KerasTable, module: str, name: str) -> str | None:
    """Return the name of a module that is nearest to one that it does not have, `None` where none is near."""
    members = table.members(module) or ()
    alike = [member for member in members if member[:1].isupper() == name[:1].isupper()]
    longer = [member for member in alike if member.startswith(name)]
    return nearest_name(name, alike) or nearest_name(name, members) or (longer[0] if len(longer) == 1 else None)


def _elsewhere(table: KerasTable, module: str, name: str) -> str:
    root = "tensorflow.keras" if module.startswith("tensorflow.keras") else module.partition(".")[0]
    rooms = ("layers", "losses", "metrics", "optimizers", "optimizers.schedules", "callbacks", "activations", "utils")
    for room in rooms if "keras" in root else ():
        if name in (table.members(f"{root}.{room}") or ()):
            return f"Did you mean `{root}.{room}.{name}`?"
    return "Correct the name."


def wrong_arguments(file: Inspected) -> Iterator[Problem]:
    """Find arguments of Keras' classes and functions that these do not take, and texts that stand for nothing."""
    table = keras_table()
    if table is None:
        return
    own = own_registered(file)
    for node in file.nodes:
        if not isinstance(node, ast.Call):
            continue
        dotted = file.full_name(node.func) or ""
        signature = table.signature(dotted) if dotted.partition(".")[0] in ROOTS else None
        if signature is not None:
            yield from _keywords(file, node, dotted, signature)
            yield from _required(file, node, dotted, signature)
            yield from _values(file, node, dotted, _by_name(node, signature), own)
        elif isinstance(node.func, ast.Attribute) and node.func.attr == "compile" and not dotted:
            yield from _values(file, node, "keras.Model.compile", _by_name(node, _COMPILE), own)


_COMPILE = CallSignature(("optimizer", "loss", "loss_weights", "metrics", "weighted_metrics"), (), frozenset(), False)


def _by_name(call: ast.Call, signature: CallSignature) -> dict[str, ast.expr]:
    given = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    if not any(isinstance(item, ast.Starred) for item in call.args):
        given |= dict(zip(signature.positional, call.args, strict=False))
    return given


def _keywords(file: Inspected, call: ast.Call, dotted: str, signature: CallSignature) -> Iterator[Problem]:
    function = written(call.func)
    starred = any(isinstance(item, ast.Starred) for item in call.args)
    if len(call.args) > len(signature.positional) and not signature.any_positional and not starred:
        most = len(signature.positional)
        text = f"too many arguments. Expected at most {most} by position, got {len(call.args)}. Give the rest by name."
        yield file.problem(call, f"{function}(…)", text)
    for keyword in call.keywords:
        name = keyword.arg
        if not name or name in signature.names or _is_removed_argument(dotted, name):
            continue
        given = {item.arg for item in call.keywords}
        free = [item for item in signature.names if item not in given]
        several = f"one of {', '.join(signature.names[:_SHOWN])}" + (", …" if len(signature.names) > _SHOWN else "")
        near = _meant_keyword(name, free)
        hint = f"Did you mean `{near}`?" if near else "Correct it, or leave it out."
        text = f"no such parameter. Expected {several if signature.names else 'none'}. {hint}"
        yield file.problem(keyword, f"{function}({name}=…)", text, (name, near or ""))


def _meant_keyword(name: str, free: list[str]) -> str | None:
    longer = [item for item in free if item.startswith((f"{name}_", name)) or item.endswith(f"_{name}")]
    return nearest_name(name, free) or (longer[0] if len(longer) == 1 else None)


def is_removed(file: Inspected, dotted: str) -> bool:
    """Return whether it is told already what to write instead of a name."""
    return any(plugin.is_removed(dotted, plugin is file.dialect) for plugin in plugins())


def _is_removed_argument(dotted: str, argument: str) -> bool:
    """Return whether it is told already what to write instead of an argument."""
    return any(plugin.is_removed_argument(dotted, argument) for plugin in plugins())


def _required(file: Inspected, call: ast.Call, dotted: str, signature: CallSignature) -> Iterator[Problem]:
    if any(isinstance(item, ast.Starred) for item in call.args) or any(item.arg is None for item in call.keywords):
        return
    given = {*signature.positional[: len(call.args)], *(item.arg for item in call.keywords)}
    missing = [name for name in signature.names if name in signature.required - given]
    unknown = [item.arg for item in call.keywords if item.arg not in signature.names]
    if missing and not unknown and not dotted.startswith(("keras.ops", "tensorflow.keras.ops")):
        text = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing. Expected a value. Add it."
        yield file.problem(call, f"{written(call.func)}(…)", text)


# --- values -----------------------------------------------------------------------------------------------------


def _values(
    file: Inspected, call: ast.Call, dotted: str, given: Mapping[str, ast.expr], own: frozenset[str]
) -> Iterator[Problem]:
    function = written(call.func)
    for parameter, node in given.items():
        for kind, suffix in _KIND_OF_PARAMETER.items():
            if parameter == suffix or parameter.endswith(f"_{suffix}"):
                yield from _texts(file, node, kind, f"{function}({parameter}=…)", own)
        check = _RANGES.get(parameter)
        if check is None or not _concerns(dotted, check[0]):
            continue
        try:
            value = file.value(node)
        except NotLiteralError:
            continue
        if not check[1](value):
            text = f"invalid value of `{parameter}`. Expected {check[2]}, got {shown(value)}. Correct it."
            yield file.problem(node, f"{function}({parameter}=…)", text, (ast.unparse(node), check[3]))


_KIND_OF_PARAMETER = {
    "activation": "activation",
    "initializer": "initializer",
    "regularizer": "regularizer",
    "constraint": "constraint",
    "loss": "loss",
    "optimizer": "optimizer",
    "metrics": "metric",
}


def _texts(file: Inspected, node: ast.expr, kind: str, name: str, own: frozenset[str]) -> Iterator[Problem]:
    """Find texts in an expression, and in lists and dictionaries in it, that Keras cannot resolve."""
    if isinstance(node, (ast.List, ast.Tuple)) and kind in ("loss", "metric"):
        for item in node.elts:
            yield from _texts(file, item, kind, name, own)
    elif isinstance(node, ast.Dict) and kind in ("loss", "metric"):
        for item in node.values:
            yield from _texts(file, item, kind, name, own)
    else:
        text = file.text(node)
        wrong = unknown_text(text, kind, own) if text is not None else None
        if wrong:
            yield file.problem(node, name, wrong, (text, nearest_text(text, kind)))


def unknown_text(text: str, kind: str, own: Iterable[str] = ()) -> str | None:
    """Return what to say of a text that Keras knows nothing by, `None` where it does.

    Args:
        text: What stands for an object of Keras.
        kind: Of which kind, such as `loss`.
        own: Names that the file gives to Keras itself.
    """
    table = keras_table()
    if table is None:
        return None
    known = _known_texts(table, kind)
    word = text.lower() if kind == "optimizer" else text
    if word in known or text in own or text.rpartition(">")[2] in own:
        return None
    named = {"optimizer": "adam, sgd, rmsprop"}.get(kind)
    otherwise = f"Known are, for instance, {named}." if named else f"`dir(keras.{_ROOMS[kind]})` lists those of Keras."
    near = nearest_text(text, kind)
    return (
        f"Unknown Keras {kind} {text!r}. Expected the name of one. {f'Did you mean {near!r}?' if near else otherwise}"
    )


_ROOMS = {
    "activation": "activations",
    "constraint": "constraints",
    "initializer": "initializers",
    "loss": "losses",
    "metric": "metrics",
    "optimizer": "optimizers",
    "regularizer": "regularizers",
}


def _known_texts(table: KerasTable, kind: str) -> frozenset[str]:
    return table.strings(kind) | (METRICS_OF_COMPILE if kind == "metric" else frozenset())


def nearest_text(text: str, kind: str) -> str | None:
    """Return the text by which Keras knows something that is nearest, in small letters first, as most write them."""
    table = keras_table()
    known = _known_texts(table, kind) if table is not None else frozenset()
    small = [name for name in known if name == name.lower()]
    longer = sorted((name for name in small if name.startswith(f"{text.lower()}_")), key=len)
    return nearest_name(text, small) or nearest_name(text, known) or (longer[0] if longer else None)


@functools.cache
def _words_of_registration() -> tuple[str, ...]:
    return ("custom_object", "register_keras_serializable", "get_custom_objects")


def own_registered(file: Inspected) -> frozenset[str]:
    """Return names that a file may give to Keras: all that it defines and writes, if it registers anything."""
    source = file.source
    if not any(word in source.text for word in _words_of_registration()):
        return frozenset()
    texts = {
        node.value
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and any(word in ast.unparse(node) for word in _words_of_registration())
        for node in ast.walk(node)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return frozenset({*source.names, *file.bound, *texts})


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _count(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool) and value > 0) or (
        isinstance(value, float) and value.is_integer() and value > 0
    )


def _counts(value: Any) -> bool:
    return all(map(_count, value)) if isinstance(value, (list, tuple)) else _count(value)


def _shape(value: Any) -> bool:
    if not isinstance(value, (list, tuple)):
        return value is None
    return all(item is None or (isinstance(item, int) and item >= 0) for item in value)


def _one_of(*words: str) -> Callable[[Any], bool]:
    return lambda value: value is None or (isinstance(value, str) and value.lower() in words)


_RANGES: dict[str, tuple[str, Callable[[Any], bool], str, str | None]] = {
    "units": ("layers", _count, "an integer of 1 or more", "8"),
    "filters": ("layers", _count, "an integer of 1 or more", "8"),
    "kernel_size": ("layers", _counts, "an integer of 1 or more, or a tuple of these", "3"),
    "pool_size": ("layers", _counts, "an integer of 1 or more, or a tuple of these", "2"),
    "strides": ("layers", lambda value: value is None or _counts(value), "an integer of 1 or more, or a tuple", "1"),
    "rate": ("layers", lambda value: _is_number(value) and 0 <= value <= 1, "a share from 0 to 1", "0.5"),
    "dropout": ("layers", lambda value: _is_number(value) and 0 <= value <= 1, "a share from 0 to 1", "0.5"),
    "padding": (
        "layers.Conv1D layers.Conv2D layers.Conv3D layers.Convolution1D layers.Convolution2D layers.Convolution3D "
        "layers.MaxPooling1D layers.MaxPooling2D layers.MaxPooling3D layers.AveragePooling1D layers.AveragePooling2D "
        "layers.AveragePooling3D layers.MaxPool1D layers.MaxPool2D layers.Conv2DTranspose layers.SeparableConv2D "
        "layers.DepthwiseConv2D layers.Conv1DTranspose layers.SeparableConv1D",
        _one_of("same", "valid", "causal"),
        "'valid' or 'same'",
        "'same'",
    ),
    "data_format": (
        "layers",
        _one_of("channels_last", "channels_first"),
        "'channels_last' or 'channels_first'",
        "None",
    ),
    "shape": ("Input layers.Input", _shape, "a tuple without the batch dimension, such as `(4,)`", None),
    "mode": ("callbacks.EarlyStopping callbacks.ModelCheckpoint callbacks.ReduceLROnPlateau",
             _one_of("auto", "min", "max"), "'auto', 'min' or 'max'", "'auto'"),
    "learning_rate": ("optimizers", lambda value: not _is_number(value) or value > 0, "a number above 0", "0.001"),
    "label_smoothing": ("losses", lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1", "0.0"),
}  # fmt: skip
"""For parameters by name: where they mean the same, what they may be, that in words, and a value that will do."""


def _concerns(dotted: str, where: str) -> bool:
    _, name = below_keras(dotted) or ("", "")
    room, _, last = name.rpartition(".")
    if where == "layers" and room == "layers":
        return True
    return name in where.split() or room == where


def batch_in_shape(file: Inspected) -> Iterator[Problem]:
    """Find inputs whose shape begins with the batch size."""
    for node in file.nodes:
        if not isinstance(node, ast.Call) or below_keras(file.full_name(node.func) or "") is None:
            continue
        if (file.full_name(node.func) or "").rpartition(".")[2] != "Input":
            continue
        shape = next((item.value for item in node.keywords if item.arg == "shape"), node.args[0] if node.args else None)
        first = shape.elts[0] if isinstance(shape, (ast.Tuple, ast.List)) and shape.elts else None
        word = ast.unparse(first) if first is not None else ""
        if word in ("batch_size", "settings.batch_size", "hparams['batch_size']"):
            text = f"the shape begins with the batch size. Expected the shape of one sample. Leave `{word}` out."
            yield file.problem(node, written(node), text)
