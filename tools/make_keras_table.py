#!/usr/bin/env python3
"""Write down what Keras and TensorFlow offer, so that `check` knows their names without importing them.

    python tools/make_keras_table.py            # writes experiments_manager/settings/keras/names.json
    python tools/make_keras_table.py --check    # fails where the file is not what the installed Keras gives

Run it when the release of Keras or TensorFlow in setup.cfg changes.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow

FILE = Path(__file__).resolve().parents[1] / "experiments_manager" / "settings" / "keras" / "names.json"
SKIPPED = ("compat", "raw_ops", "keras")
"""Modules of TensorFlow that are not walked: what they hold is left alone."""
KINDS = {
    "activation": "activations",
    "constraint": "constraints",
    "initializer": "initializers",
    "loss": "losses",
    "metric": "metrics",
    "optimizer": "optimizers",
    "regularizer": "regularizers",
}
ROOTS = ("layers.Layer", "Model", "losses.Loss", "metrics.Metric", "callbacks.Callback", "utils.PyDataset")
"""The classes that users derive from."""
FROM_KWARGS = re.compile(r"kwargs\.(?:pop|get)\(\s*[\"'](\w+)[\"']|[\"'](\w+)[\"']\s+in\s+kwargs|kwargs\[\s*[\"'](\w+)")
BY_MODEL = ("inputs", "outputs")
"""`keras.Model` takes these for a functional model, in a `__new__` that does not name them."""


def names_below(root: types.ModuleType, name: str, private: str) -> dict[str, list[str]]:
    """Return the public names of a module and of all modules in it, by the modules' full names."""
    found: dict[str, list[str]] = {}
    waiting, seen = [(name, root)], set()
    while waiting:
        name, module = waiting.pop(0)
        if id(module) in seen:
            continue
        seen.add(id(module))
        found[name] = sorted(item for item in dir(module) if not item.startswith("_"))
        for item in found[name]:
            value = getattr(module, item, None)
            if not isinstance(value, types.ModuleType) or private in f"{value.__name__}." or item in SKIPPED:
                continue
            if value.__name__.startswith(("keras", "tensorflow")):
                waiting.append((f"{name}.{item}", value))
    return found


def signature(offered: Any) -> str | None:
    """Return the parameters of a class or function: `name!` is required, what follows `*` is given by name alone.

    `None` where it takes any keyword. The keywords that a constructor hands on are those of the classes that it derives
    from, and those that one of them takes out of `**kwargs`.
    """
    chain = constructors(offered) if inspect.isclass(offered) else [offered]
    positional: list[str] = []
    by_name: list[str] = [*BY_MODEL] if inspect.isclass(offered) and issubclass(offered, keras.Model) else []
    for depth, function in enumerate(chain):
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            return None
        if "update(kwargs)" in source_of(function):
            return None  # keeps whatever it gets
        goes_on = False
        for parameter in parameters:
            word = parameter.name + ("!" if parameter.default is parameter.empty else "")
            if parameter.kind is parameter.VAR_KEYWORD:
                goes_on = True
                by_name += taken_from_kwargs(function)
            elif parameter.kind is parameter.VAR_POSITIONAL:
                positional += ["**"] if depth == 0 else []
            elif parameter.name == "self":
                continue
            elif depth == 0 and parameter.kind is not parameter.KEYWORD_ONLY:
                positional.append(word)
            else:
                by_name.append(word if depth == 0 else parameter.name)
        if not goes_on:
            break
    else:
        if chain[-1] is not object.__init__:
            return None  # the last one takes any keyword
    there = {word.rstrip("!") for word in positional}
    by_name = [word for word in dict.fromkeys(by_name) if word.rstrip("!") not in there and word != "**"]
    return " ".join([*positional, "*", *by_name] if by_name else positional)


def constructors(kind: type) -> list[Any]:
    """Return the constructors that keywords go through; a model hands them to the layer that it is."""
    own = [base for base in kind.__mro__ if "__init__" in vars(base) and "Trainer" not in base.__name__]
    return [base.__init__ for base in own]


def taken_from_kwargs(function: Any) -> Iterator[str]:
    for groups in FROM_KWARGS.findall(source_of(function)):
        yield next(filter(None, groups))


def source_of(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return ""


def signatures(modules: dict[str, list[str]]) -> dict[str, str]:
    """Return the signatures of all classes and functions of Keras, by full names."""
    found = {}
    for module, names in modules.items():
        room = importlib.import_module(module) if module == "keras" else attribute(module)
        for name in names:
            offered = getattr(room, name, None)
            if module.startswith("keras.ops.") and getattr(keras.ops, name, None) is offered:
                continue
            if inspect.isclass(offered) or inspect.isfunction(offered):
                text = signature(offered)
                if text is not None:
                    found[f"{module}.{name}"] = text
    return found


def attribute(dotted: str) -> Any:
    value = keras
    for part in dotted.split(".")[1:]:
        value = getattr(value, part)
    return value


def strings() -> dict[str, list[str]]:
    """Return the texts that Keras resolves where it takes an object of each kind."""
    found = {}
    for kind, room in KINDS.items():
        names = importlib.import_module(f"keras.src.{room}").ALL_OBJECTS_DICT
        found[kind] = sorted(name for name in names if isinstance(name, str))
    return found


def bases(modules: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the classes that users derive from, each with all names of its subclasses in Keras."""
    found: dict[str, list[str]] = {}
    for root in ROOTS:
        kind = attribute(f"keras.{root}")
        for module, names in modules.items():
            for name in names:
                offered = getattr(attribute(module), name, None)
                if inspect.isclass(offered) and issubclass(offered, kind):
                    found.setdefault(root, []).append(f"{module}.{name}")
    return found


def attributes() -> dict[str, list[str]]:
    """Return the public names that objects of the classes that users derive from have."""
    found = {}
    for root in ROOTS:
        chain = attribute(f"keras.{root}").__mro__
        set_there = {name for kind in chain for name in re.findall(r"\bself\.([a-z]\w*)\s*[:=]", source_of(kind))}
        names = {*dir(chain[0]), *set_there}
        found[root] = sorted(name for name in names if not name.startswith("_"))
    return found


def table() -> dict[str, Any]:
    """Return all that is written down."""
    own = names_below(keras, "keras", ".src.")
    own.pop("keras.src", None)
    within = names_below(tensorflow.keras, "tensorflow.keras", ".src.")
    other = {name: names for name, names in within.items() if names != own.get(name.removeprefix("tensorflow."))}
    below = names_below(tensorflow, "tensorflow", "tensorflow.python")
    return {
        "versions": {"keras": keras.__version__, "tensorflow": tensorflow.__version__},
        "modules": {name: " ".join(names) for name, names in (own | other | below).items()},
        "strings": {kind: " ".join(names) for kind, names in strings().items()},
        "attributes": {root: " ".join(names) for root, names in attributes().items()},
        "bases": {root: " ".join(names) for root, names in bases(own).items()},
        "signatures": signatures(own),
    }


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--check", action="store_true", help="write nothing; fail where the file is not up to date")
    text = json.dumps(table(), indent=0, sort_keys=True) + "\n"
    if not arguments.parse_args().check:
        FILE.write_text(text, encoding="utf-8")
        return 0
    if FILE.read_text(encoding="utf-8") == text:
        return 0
    print(f"{FILE} is not what the installed Keras gives. Run `python {sys.argv[0]}`.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
