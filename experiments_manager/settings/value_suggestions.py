"""What somebody may have meant by a value that does not fit its setting."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

import pydantic

from experiments_manager.common.suggestions import nearest_name
from experiments_manager.settings.problems import shown
from experiments_manager.settings.schema import SettingSpec, Values
from experiments_manager.settings.types import choices

_LONGEST = 60
"""Longest value that is written out, in characters."""

_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False, "none": None}


def remedy(value: Any, entry: SettingSpec) -> str:
    """Say what to write instead of a value.

    Args:
        value: One that does not fit.
        entry: The setting.

    Returns:
        A sentence: the value that may be meant, where one that fits is near.
    """
    for candidate in _candidates(value, entry):
        if is_valid(candidate, entry):
            text = shown(candidate)
            return f"Write {text}." if len(text) <= _LONGEST else "Correct it."
    return "Correct it."


def is_valid(value: Any, entry: SettingSpec) -> bool:
    """Return whether a setting may have a value, as far as its type tells."""
    adapter = pydantic.TypeAdapter(entry.annotation, config=Values.model_config)
    try:
        adapter.validate_python(value)
    except pydantic.ValidationError:
        return False
    return True


def _candidates(value: Any, entry: SettingSpec) -> Iterator[Any]:
    """Yield values that look like another one, the likeliest first."""
    if isinstance(value, str):
        yield from _readings(value, entry)
    elif isinstance(value, (list, tuple)) and len(value) == 1:  # a comma too many: `epochs = 10,`
        yield value[0]
    elif isinstance(value, range):
        yield value.stop
    elif isinstance(value, float) and value.is_integer():
        yield int(value)
    elif isinstance(value, bool):
        yield from () if value else (None,)
    elif isinstance(value, int):
        yield from (bool(value),) if value in (0, 1) else ()
        yield [value]


def _readings(text: str, entry: SettingSpec) -> Iterator[Any]:
    word = text.strip()
    if word.lower() in _WORDS:
        yield _WORDS[word.lower()]
    names = [choice for choice in choices(entry.annotation) if isinstance(choice, str)]
    near = nearest_name(word, names)
    if near:
        yield near
    try:
        literal = ast.literal_eval(word)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        yield [item.strip() for item in word.split(",")]
    else:
        yield literal
        yield [literal]
