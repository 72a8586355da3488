"""JSON as text, and what is wrong with it, in the words of RapidJSON, which TensorFlow Serving reads it with."""

from __future__ import annotations

import json
import re
from typing import Any

from experiments_manager.protocol.status import ServingError, invalid_argument

# No pattern is for a whole string: it would note where each repetition began, a hundred bytes for each character.
_OTHER_NUMBERS = re.compile(r'\\[\\"]|"|Inf(?!inity)|-NaN')
_BRACKETS = re.compile(r'\\[\\"]|["\[\]{}]')

_SENTENCES = {
    "Expecting value": "Invalid value.",
    "Illegal trailing comma before end of array": "Invalid value.",
    "Illegal trailing comma before end of object": "Missing a name for object member.",
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Unterminated string starting at": "Missing a closing quotation mark in string.",
    "Invalid control character at": "Invalid encoding in string.",
    "Invalid \\uXXXX escape": "Incorrect hex digit after \\u escape in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Extra data": "The document root must not be followed by other values.",
}
"""What Python's parser says, and what RapidJSON says."""


def parse(body: bytes) -> Any:
    """Parse JSON.

    Args:
        body: The text in UTF-8. NaN, Inf and Infinity are numbers too, with or without a sign.

    Raises:
        ServingError: INVALID_ARGUMENT for what is no JSON.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _error("Invalid encoding in string.", error.start) from error
    try:
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            if not text.startswith(("Inf", "-Inf", "-NaN"), error.pos):
                raise
            return json.loads(_respelled(text))
    except json.JSONDecodeError as error:
        raise _error(_sentence(error), len(error.doc[: error.pos].encode(errors="replace"))) from error
    except RecursionError as error:
        raise invalid_argument("JSON Parse error: The document is nested too deeply") from error
    except ValueError as error:  # a number of thousands of digits
        raise invalid_argument("JSON Parse error: Number too big to be stored in double.") from error


def _respelled(text: str) -> str:
    """Return numbers that Python does not know the spelling that it does; strings stay as they are."""
    quoted = False

    def spell(found: re.Match[str]) -> str:
        nonlocal quoted
        token = found[0]
        if token == '"':
            quoted = not quoted
        if quoted or token[0] in '"\\':
            return token
        return "Infinity" if token == "Inf" else "NaN"

    return _OTHER_NUMBERS.sub(spell, text)


def _sentence(error: json.JSONDecodeError) -> str:
    if not error.doc.strip():
        return "The document is empty."
    if error.msg == "Expecting ',' delimiter":
        kind, end = ("object member", "}") if _inside_object(error.doc[: error.pos]) else ("array element", "]")
        return f"Missing a comma or {end} after an {kind}."
    return next((words for start, words in _SENTENCES.items() if error.msg.startswith(start)), f"{error.msg}.")


def _inside_object(text: str) -> bool:
    """Return whether the innermost bracket that is open at the end of a text is that of an object."""
    opened: list[str] = []
    quoted = False
    for found in _BRACKETS.finditer(text):
        token = found[0]
        if token == '"':
            quoted = not quoted
        elif quoted:
            continue
        elif token in "[{":
            opened.append(token)
        elif token in "]}" and opened:
            opened.pop()
    return bool(opened) and opened[-1] == "{"


def _error(sentence: str, offset: int) -> ServingError:
    return invalid_argument(f"JSON Parse error: {sentence} at offset: {offset}")
