"""Answers of TensorFlow Serving's REST API as JSON, by the rules of its `util/json_tensor.cc`.

A float is written with the fewest digits that give it back: 0.2 in single precision is `0.2`, not `0.20000000298`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments_manager.protocol.status import ServingError, invalid_argument
from experiments_manager.serving.api.json.requests import ROW

_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def write_predictions(outputs: Mapping[str, np.ndarray], form: str) -> str:
    """Write the answer to a `:predict` request.

    Args:
        outputs: Arrays by name; strings as `bytes` in arrays of `object`.
        form: The form of the request, `ROW` or `COLUMN`.

    Raises:
        ServingError: INVALID_ARGUMENT where rows cannot be made of the outputs, or JSON lacks a type.
    """
    if not outputs:
        raise invalid_argument("Cannot convert empty tensor map to JSON")
    outputs = dict(sorted(outputs.items()))
    return _rows(outputs) if form == ROW else _columns(outputs)


def _rows(outputs: Mapping[str, np.ndarray]) -> str:
    size = None
    for name, array in outputs.items():
        if array.ndim == 0:
            raise invalid_argument(f"Tensor name: {name} has no shape information ")
        if size is not None and len(array) != size:
            raise invalid_argument(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {size}")
        size = len(array)
    columns = {json.dumps(name): _nested(name, array, array.shape[1:]) for name, array in outputs.items()}
    if len(columns) == 1:
        [rows] = columns.values()
    else:
        names = list(columns)
        rows = [
            "{" + ", ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True)) + "}"
            for values in zip(*columns.values(), strict=True)
        ]
    return '{\n    "predictions": [' + ", ".join(rows) + "\n    ]\n}"


def _columns(outputs: Mapping[str, np.ndarray]) -> str:
    columns = {json.dumps(name): _nested(name, array, array.shape)[0] for name, array in outputs.items()}
    if len(columns) == 1:
        [text] = columns.values()
    else:
        text = "{" + ", ".join(f"{name}: {value}" for name, value in columns.items()) + "}"
    return f'{{\n    "outputs": {text}\n}}'


def _nested(name: str, array: np.ndarray, shape: Sequence[int]) -> list[str]:
    """Return the values as text, put together along all dimensions of `shape`, which are the array's last ones."""
    texts = _texts(name, array)
    count = array.size
    for place in range(len(shape) - 1, -1, -1):
        size = shape[place]
        count = int(np.prod(array.shape[: array.ndim - len(shape) + place], dtype=np.int64))
        texts = ["[" + ", ".join(texts[size * start : size * (start + 1)]) + "]" for start in range(count)]
    return texts


def _texts(name: str, array: np.ndarray) -> list[str]:
    kind = array.dtype.kind
    if kind in "iu":
        return list(map(str, array.ravel().tolist()))
    if kind == "b":
        return ["true" if value else "false" for value in array.ravel().tolist()]
    if kind in "OS":
        as_bytes = name.endswith("_bytes")
        return [_string(value, as_bytes=as_bytes) for value in array.ravel().tolist()]
    if kind == "f" or array.dtype.name == "bfloat16":
        return decimals(array)
    raise invalid_argument(f"Failed to write JSON value for tensor type: {array.dtype.name}")


def decimals(array: np.ndarray) -> list[str]:
    """Write floats of any precision."""
    flat = array.ravel()
    if flat.dtype.name == "bfloat16":
        flat = flat.astype(np.float32)
    texts = list(map(repr, flat.tolist())) if flat.dtype == np.float64 else list(map(str, flat))
    if not np.isfinite(flat).all():
        texts = [_NOT_FINITE.get(text, text) for text in texts]
    return texts


def _string(value: bytes, *, as_bytes: bool) -> str:
    if as_bytes:
        return json.dumps({"b64": base64.b64encode(value).decode("ascii")})
    return json.dumps(value.decode("utf-8", errors="replace"), ensure_ascii=False)


def write_classifications(result: Any) -> str:
    """Write a `ClassificationResult`."""
    if not result.classifications:
        raise invalid_argument("Cannot convert empty ClassificationResults to JSON")
    rows = []
    for classifications in result.classifications:
        scores = decimals(np.array([entry.score for entry in classifications.classes], dtype=np.float32))
        labels = [json.dumps(entry.label, ensure_ascii=False) for entry in classifications.classes]
        rows.append("[" + ", ".join(f"[{label}, {score}]" for label, score in zip(labels, scores, strict=True)) + "]")
    return '{\n    "results": [' + ", ".join(rows) + "\n    ]\n}"


def write_regressions(result: Any) -> str:
    """Write a `RegressionResult`."""
    if not result.regressions:
        raise invalid_argument("Cannot convert empty RegressionResults to JSON")
    values = decimals(np.array([regression.value for regression in result.regressions], dtype=np.float32))
    return '{\n    "results": [' + ", ".join(values) + "]\n}"


def write_error(error: ServingError | str) -> str:
    """Write the answer to a request that failed."""
    message = error.message if isinstance(error, ServingError) else error
    return json.dumps({"error": message}, indent=4, ensure_ascii=False)
