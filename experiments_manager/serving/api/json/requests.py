"""JSON requests of TensorFlow Serving's REST API, read into arrays.

The rules and the sentences of errors are those of TensorFlow Serving's `util/json_tensor.cc`. Numbers go through NumPy
in one step; where something about a tensor looks odd, it is read again value by value, to find and name what is wrong.
What is no JSON is read again too, by `json_text`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np

from experiments_manager.protocol.status import Code, ServingError, invalid_argument
from experiments_manager.serving.api.json.text import parse
from experiments_manager.serving.api.json.values import (
    FLOATS,
    INTEGERS,
    checked_decimal,
    decode_base64,
    encoded,
    format_error,
    is_base64,
    json_type,
    shown,
)
from experiments_manager.serving.models.signatures import TensorSpec

ROW, COLUMN = "row", "column"
MAX_RANK = 64
"""Dimensions of a NumPy array at most; TensorFlow itself takes 254."""


class Document:
    """The body of a request, parsed.

    Args:
        body: JSON, in which NaN, Inf and Infinity are numbers too, with or without a sign.

    Raises:
        ServingError: INVALID_ARGUMENT for what is no JSON object.
    """

    def __init__(self, body: bytes) -> None:
        if not body:
            raise invalid_argument("JSON Parse error: The document is empty")
        self.content = parse(body)
        if not isinstance(self.content, dict):
            raise format_error(self.content, "Is not object")

    @property
    def signature_name(self) -> str:
        """The signature that is asked for, empty for the default one."""
        name = self.content.get("signature_name", "")
        if not isinstance(name, str):
            raise format_error(self.content, "not formatted correctly. 'signature_name' key must be a string value.")
        encoded(name)  # which text of half a surrogate pair cannot be
        return name


def read_predict(document: Document, specs: Mapping[str, TensorSpec]) -> tuple[dict[str, np.ndarray], str]:
    """Read the inputs of a `:predict` request.

    Args:
        document: The request.
        specs: Inputs of the signature.

    Returns:
        Arrays by name, and the form of the request, `ROW` or `COLUMN`.

    Raises:
        ServingError: INVALID_ARGUMENT, or UNIMPLEMENTED for a type that JSON does not have.
    """
    content = document.content
    if not specs:
        raise invalid_argument(f"Failed to get input map for signature: {document.signature_name or 'DEFAULT'}")
    if "instances" in content and "inputs" in content:
        text = "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        raise format_error(content, text)
    if "instances" in content:
        instances = content["instances"]
        if not isinstance(instances, list):
            raise format_error(content, "Expecting 'instances' to be an list/array")
        if not instances:
            raise format_error(content, "No values in 'instances' array")
        return _read_rows(instances, specs), ROW
    if "inputs" in content:
        return _read_columns(content["inputs"], specs), COLUMN
    raise invalid_argument("Missing 'inputs' or 'instances' key")


def _read_rows(instances: list[Any], specs: Mapping[str, TensorSpec]) -> dict[str, np.ndarray]:
    if not _is_named(instances[0]) and len(specs) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    if not _is_named(instances[0]):
        for number, instance in enumerate(instances):
            if _is_named(instance):
                raise invalid_argument(f"Expecting value/list but got object at item {number} of input list")
        [(name, spec)] = specs.items()
        return {name: _read_instances(instances, name, spec, keyed=False)}
    for number, instance in enumerate(instances):
        if not _is_named(instance):
            raise invalid_argument(f"Expecting object but got list at item {number} of input list")
        if instance.keys() != specs.keys():
            for name in instance.keys() - specs.keys():
                raise invalid_argument(
                    f"Failed to process element: {number} key: {name} of 'instances' list. "
                    f"Error: INVALID_ARGUMENT: JSON object: does not have named input: {name}"
                )
            raise invalid_argument(
                f"Failed to process element: {number} of 'instances' list. JSON object: {shown(instance)} keys must "
                f"be equal to: {','.join(sorted(specs))}"
            )
    return {
        name: _read_instances([instance[name] for instance in instances], name, spec, keyed=True)
        for name, spec in specs.items()
    }


def _read_instances(values: list[Any], name: str, spec: TensorSpec, *, keyed: bool) -> np.ndarray:
    """Read one input of all instances; they must agree in shape."""
    array = _quickly(values, spec)
    if array is not None:
        return array
    rows: list[np.ndarray] = []
    for number, value in enumerate(values):
        try:
            row = _one_by_one(value, spec)
            if rows and row.size != rows[0].size:
                raise invalid_argument(f"Expecting tensor size: {rows[0].size} but got: {row.size}")
            if rows and row.shape != rows[0].shape:
                raise invalid_argument(f"Expecting shape {_shape(rows[0])} but got: {_shape(row)}")
        except ServingError as error:
            key = f" key: {name}" if keyed else ""
            raise invalid_argument(
                f"Failed to process element: {number}{key} of 'instances' list. "
                f"Error: {error.code.name}: {error.message}"
            ) from error
        rows.append(row)
    return np.stack(rows)


def _read_columns(inputs: Any, specs: Mapping[str, TensorSpec]) -> dict[str, np.ndarray]:
    if not _is_named(inputs):
        if len(specs) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        [(name, spec)] = specs.items()
        return {name: _read_tensor(inputs, spec)}
    arrays = {}
    for name, spec in specs.items():
        if name not in inputs:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
        arrays[name] = _read_tensor(inputs[name], spec)
    return arrays


def _read_tensor(value: Any, spec: TensorSpec) -> np.ndarray:
    array = _quickly(value, spec)
    return _one_by_one(value, spec) if array is None else array


def _quickly(value: Any, spec: TensorSpec) -> np.ndarray | None:
    """Read plain numbers; `None` where they are not plain enough to be sure of them."""
    if spec.dtype not in INTEGERS and spec.dtype not in FLOATS:
        return None
    array = _plain_numbers(value)
    if array is None:
        return None
    if array.size == 0:
        return array.astype(spec.numpy_dtype)
    if spec.dtype in INTEGERS:
        if array.dtype.kind not in "iu":
            return None
        limits = np.iinfo(spec.numpy_dtype)
        fits = int(array.min()) >= limits.min and int(array.max()) <= limits.max
        return array.astype(spec.numpy_dtype) if fits else None
    if array.dtype.kind not in "iuf":
        return None
    with np.errstate(over="ignore"):
        found = array.astype(spec.numpy_dtype)
    finite = np.isfinite(found)
    return found if finite.all() or np.array_equal(finite, np.isfinite(array)) else None


def _plain_numbers(value: Any) -> np.ndarray | None:
    """Put nested lists of nothing but numbers into an array; `None` where they are anything else.

    NumPy alone would take text too, and give each value of an array as much room as the longest one: gigabytes for a
    short request.
    """
    shape: list[int] = []
    flat = [value]
    while (kinds := set(map(type, flat))) == {list}:
        sizes = set(map(len, flat))
        shape += sizes
        if len(sizes) > 1 or len(shape) > MAX_RANK:
            return None
        flat = list(chain.from_iterable(flat))
    if not kinds <= {int, float}:
        return None
    try:
        return np.array(flat, None if kinds == {int} else float).reshape(shape)
    except OverflowError:
        return None


def _one_by_one(value: Any, spec: TensorSpec) -> np.ndarray:
    """Read any value, and names the first thing that is wrong with it."""
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


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def _shape(array: np.ndarray) -> str:
    return "[" + ",".join(map(str, array.shape)) + "]"
