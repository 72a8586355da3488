"""What Keras and TensorFlow offer by name, read from a table, so that none of them is imported.

The table is written by `tools/make_keras_table.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
from pathlib import Path
from typing import Any

_FILE = Path(__file__).with_name("names.json")


@dataclasses.dataclass(frozen=True)
class CallSignature:
    """The parameters of a class or function.

    Attributes:
        positional: Those that may be given by position, in their order.
        by_name: Those that can only be given by name.
        required: Those that have no default.
        any_positional: Whether it takes any number of arguments by position.
    """

    positional: tuple[str, ...]
    by_name: tuple[str, ...]
    required: frozenset[str]
    any_positional: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all parameters, positional ones first."""
        return self.positional + self.by_name


class KerasTable:
    """Names of Keras and TensorFlow, of the releases that are installed.

    Args:
        content: What the file holds.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        self._content = content
        self._signatures: dict[str, CallSignature | None] = {}

    @functools.cache  # noqa: B019  (there is one table)
    def members(self, module: str) -> frozenset[str] | None:
        """Return the public names of a module, `None` where it is not in the table."""
        if module.startswith("tensorflow.keras") and module not in self._content["modules"]:
            module = module.removeprefix("tensorflow.")
        names = self._content["modules"].get(module)
        return frozenset(names.split()) if names is not None else None

    @functools.cache  # noqa: B019
    def strings(self, kind: str) -> frozenset[str]:
        """Return the texts that stand for an object of a kind, such as `loss` or `activation`."""
        return frozenset(self._content["strings"][kind].split())

    @functools.cache  # noqa: B019
    def subclasses(self, root: str) -> frozenset[str]:
        """Return the full names of a class of Keras, such as `layers.Layer`, and of all that derive from it."""
        return frozenset(self._content["bases"][root].split())

    @functools.cache  # noqa: B019
    def attributes(self, root: str) -> frozenset[str]:
        """Return the public names that objects of a class of Keras, such as `layers.Layer`, have."""
        return frozenset(self._content["attributes"][root].split())

    def signature(self, full_name: str) -> CallSignature | None:
        """Return the parameters of what has this full name, `None` where they are not known."""
        full_name = full_name.removeprefix("tensorflow.")
        if full_name not in self._signatures:
            text = self._content["signatures"].get(full_name)
            self._signatures[full_name] = _parse(text) if text is not None else None
        return self._signatures[full_name]


def _parse(text: str) -> CallSignature:
    words = text.split()
    at = words.index("*") if "*" in words else len(words)
    positional = [word for word in words[:at] if word != "**"]
    required = frozenset(word[:-1] for word in words if word.endswith("!"))
    names = [word.rstrip("!") for word in positional]
    return CallSignature(tuple(names), tuple(w.rstrip("!") for w in words[at + 1 :]), required, "**" in words)


@functools.cache
def keras_table() -> KerasTable | None:
    """Return the table; `None` where other releases are installed than it was made of, of which it might be wrong."""
    content = json.loads(_FILE.read_text(encoding="utf-8"))
    for package, version in content["versions"].items():
        installed = _installed(package)
        if installed is not None and _minor(installed) != _minor(version):
            return None
    return KerasTable(content)


def _installed(package: str) -> str | None:
    """Return the version of a package, from the name of the folder that describes it beside it; imports nothing."""
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # something else stands in its place in this process
        return None
    if spec is None or not spec.origin:
        return None
    folders = Path(spec.origin).parent.parent.glob(f"{package}-*.dist-info")
    return next((folder.name.removesuffix(".dist-info").rpartition("-")[2] for folder in folders), None)


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]
