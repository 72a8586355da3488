"""JSON values read one by one, as TensorFlow Serving's REST API understands them, and how errors show them."""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any

import numpy as np

from experiments_manager.protocol.status import Code, ServingError, invalid_argument
from experiments_manager.serving.models.signatures import TensorSpec

INTEGERS = frozenset({"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"})
FLOATS = frozenset({"half", "bfloat16", "float", "double"})
MAX_RANK = 64
"""Dimensions of a NumPy array at most; TensorFlow itself takes 254."""
SHOWN = 200
"""Characters of a value that an error shows at most."""


def read_exactly(value: Any, spec: TensorSpec) -> np.ndarray:
    """Read any value into an array, or say in INVALID_ARGUMENT what the first thing is that is wrong with it."""
    shape: list[int] = []
    inner = value
    while isinstance(inner, list):
        shape.append(len(inner))
        if len(shape) > MAX_RANK:
            raise invalid_argument(f"Encountered list at unexpected level: {MAX_RANK} expected < {MAX_RANK}")
        if not inner:
            break
        inner = inner[0]
    flat: list[Any] = []
    _flatten(value, 0, shape, spec, flat)
    array = np.empty(len(flat), dtype=spec.numpy_dtype)
    array[:] = flat
    return array.reshape(shape)


def _flatten(value: Any, level: int, shape: list[int], spec: TensorSpec, flat: list[Any]) -> None:
    rank = len(shape)
    if not isinstance(value, list):
        if level != rank:
            raise invalid_argument(
                f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {rank}"
            )
        flat.append(_scalar(value, spec))
        return
    if level >= rank:
        raise invalid_argument(f"Encountered list at unexpected level: {level} expected < {rank}")
    if len(value) != shape[level]:
        raise invalid_argument(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for item in value:
        _flatten(item, level + 1, shape, spec, flat)


def _scalar(value: Any, spec: TensorSpec) -> Any:
    if spec.dtype == "string":
        if isinstance(value, dict):
            return decode_base64(value)
        if isinstance(value, str):
            return encoded(value)
    elif spec.dtype == "bool":
        if isinstance(value, bool):
            return value
    elif spec.dtype in INTEGERS:
        limits = np.iinfo(spec.numpy_dtype)
        if isinstance(value, int) and not isinstance(value, bool) and limits.min <= value <= limits.max:
            return value
    elif spec.dtype in FLOATS:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return checked_decimal(value, spec.dtype, spec.numpy_dtype)
    else:
        raise ServingError(Code.UNIMPLEMENTED, f"Conversion of JSON Value: {shown(value)} to type: {spec.dtype}")
    raise invalid_argument(f"JSON Value: {shown(value)} Type: {json_type(value)} is not of expected type: {spec.dtype}")


def checked_decimal(value: float, name: str, kind: np.dtype) -> float:
    """Return a number as a float; one that is too large for a floating type is INVALID_ARGUMENT."""
    try:
        number = float(value)
        with np.errstate(over="ignore"):
            fits = not math.isfinite(number) or bool(np.isfinite(np.asarray(number).astype(kind)))
    except OverflowError:  # a whole number that not even double precision holds
        fits = False
    if not fits:
        raise invalid_argument(f"Cannot convert JSON value: {shown(value)} to {name} without loss of precision.")
    return number


def is_base64(value: Any) -> bool:
    """Return whether a value is an object of the form `{"b64": "…"}`."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def decode_base64(value: Any) -> bytes:
    """Return the bytes of such an object; anything else is INVALID_ARGUMENT."""
    if not is_base64(value):
        raise invalid_argument(f"JSON Value: {shown(value)} not formatted correctly for base64 data")
    text = "".join(value["b64"].split()).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid_argument("Unable to base64 decode") from error


def encoded(text: str) -> bytes:
    """Return a string as UTF-8."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise invalid_argument("JSON Parse error: The surrogate pair in string is invalid.") from error


def format_error(value: Any, text: str) -> ServingError:
    """Return INVALID_ARGUMENT about a value."""
    return invalid_argument(f"JSON Value: {shown(value)} {text}")


def shown(value: Any) -> str:
    """Return the value as JSON, cut where it is long; only the beginning of a long list is looked at."""
    try:
        text = json.dumps(_shortened(value))
    except RecursionError:
        text = f"a deeply nested {json_type(value)}"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _shortened(value: Any, depth: int = 0) -> Any:
    if isinstance(value, list):
        return [_shortened(item, depth + 1) for item in value[:20]] if depth < 20 else []
    if isinstance(value, dict):
        items = list(value.items())[:20]
        return {key: _shortened(item, depth + 1) for key, item in items} if depth < 20 else {}
    return value[: SHOWN + 1] if isinstance(value, str) else value


def json_type(value: Any) -> str:
    """Return RapidJSON's name of a value's type."""
    kinds = {type(None): "Null", bool: str(value), dict: "Object", list: "Array", str: "String"}
    return kinds.get(type(value), "Number")
