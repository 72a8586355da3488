"""Label maps in the text format of the TensorFlow object detection API."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from experiments_manager.common.tables.problems import DataFileError

LABEL_MAP = "label_map.pbtxt"
_ITEM = re.compile(r"item\s*:?\s*\{((?:[^{}\"']|\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')*)\}")
_FIELD = re.compile(r"(\w+)\s*:\s*(\d+|\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')")

_ESCAPED = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_CONTROLS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def label_map_text(categories: Mapping[int, str]) -> str:
    """Return the label map of categories by their ids."""
    items = (
        f"item {{\n  id: {number}\n  name: {json.dumps(name, ensure_ascii=False)}\n}}\n"
        for number, name in sorted(categories.items())
    )
    return "\n".join(items)


def read_label_map(path: Path | str) -> dict[int, str]:
    """Read a label map: the names of categories by their ids, which begin at 1.

    Args:
        path: A file with an `item { id: 1 name: "person" }` for each category. Where an item has a `display_name` too,
            that is its name.

    Raises:
        DataFileError: The file cannot be read, is no label map, or has an id twice.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataFileError(f"{path} not found. Expected a label map, as `data coco-to-tfrecord` writes it.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataFileError(f"{path} cannot be read: {error}. Expected a label map in UTF-8.") from error
    text = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
    if _ITEM.sub("", text).strip(" \t\r\n,;"):
        raise DataFileError(f'{path} is no label map. Expected items such as `item {{ id: 1 name: "person" }}`.')
    found: dict[int, str] = {}
    for number, item in enumerate(_ITEM.findall(text), start=1):
        fields = {name: _value(value) for name, value in _FIELD.findall(item)}
        name = fields.get("display_name", fields.get("name"))
        key = int(fields["id"]) if fields.get("id", "").isdigit() else 0
        if key < 1 or name is None:
            raise DataFileError(f"{path}: item {number} has no id from 1, or no name. Expected both.")
        if key in found:
            raise DataFileError(f"{path}: the id {key} is there twice. Expected another for each item.")
        found[key] = name
    if not found:
        raise DataFileError(f"{path} has no items. Expected one for each category.")
    return dict(sorted(found.items()))


def _value(text: str) -> str:
    return _ESCAPED.sub(_character, text[1:-1]) if text[0] in "\"'" else text


def _character(escaped: re.Match[str]) -> str:
    code = escaped[1]
    return chr(int(code[1:], 16)) if len(code) > 1 else _CONTROLS.get(code, code)
