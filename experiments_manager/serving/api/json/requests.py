"""JSON requests of TensorFlow Serving's REST API, read into arrays.

The rules and the texts of errors are those of TensorFlow Serving's `util/json_tensor.cc`. Numbers go through NumPy in
one step; where something about a tensor looks odd, it is read again value by value (`values.read_exactly`), to find and
name what is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np

from experiments_manager.protocol import messages
from experiments_manager.protocol.status import ServingError, invalid_argument
from experiments_manager.serving.api.json.values import (
    FLOATS,
    INTEGERS,
    MAX_RANK,
    checked_decimal,
    decode_base64,
    encoded,
    format_error,
    is_base64,
    json_type,
    read_exactly,
    shown,
)
from experiments_manager.serving.models.signatures import TensorSpec

ROW, COLUMN = "row", "column"
# No pattern is for a whole string: it would note where each repetition began, a hundred bytes for each character.
_OTHER_NUMBERS = re.compile(r'\\[\\"]|"|Inf(?!inity)|-NaN')


class Document:
    """The body of a request, parsed.

    Args:
        body: JSON, in which NaN, Inf and Infinity are numbers too, with or without a sign.

    Raises:
        ServingError: INVALID_ARGUMENT for what is no JSON object.
    """

    def __init__(self, body: bytes) -> None:
        self.content = _parse(body)
        if not isinstance(self.content, dict):
            raise format_error(self.content, "Is not object")

    @property
    def signature_name(self) -> str:
        """The signature that is asked for, empty for the default one."""
        name = self.content.get("signature_name", "")
        if not isinstance(name, str):
            raise format_error(self.content, "not formatted correctly. 'signature_name' key must be a string value.")
        if not name.isascii():
            encoded(name)  # which text of half a surrogate pair cannot be
        return name


def _parse(body: bytes) -> Any:
    try:
        text = body.decode("utf-8-sig")
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            if not text.startswith(("Inf", "-Inf", "-NaN"), error.pos):
                raise
            return json.loads(_respelled(text))
    except json.JSONDecodeError as error:
        raise invalid_argument(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
    except UnicodeDecodeError as error:
        raise invalid_argument(f"JSON Parse error: {error}") from error
    except RecursionError as error:
        raise invalid_argument("JSON Parse error: The document is nested too deeply") from error
    except ValueError as error:  # a number of thousands of digits
        raise invalid_argument("JSON Parse error: Number too big to be stored in double.") from error


def _respelled(text: str) -> str:
    """Return numbers that only TensorFlow Serving knows in Python's spelling; strings stay as they are."""
    quoted = False

    def spell(match: re.Match[str]) -> str:
        nonlocal quoted
        token = match[0]
        if token == '"':
            quoted = not quoted
        if quoted or token[0] in '"\\':
            return token
        return "Infinity" if token == "Inf" else "NaN"

    return _OTHER_NUMBERS.sub(spell, text)


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
            row = read_exactly(value, spec)
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
    return read_exactly(value, spec) if array is None else array


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
        converted = array.astype(spec.numpy_dtype)
    finite = np.isfinite(converted)
    return converted if finite.all() or np.array_equal(finite, np.isfinite(array)) else None


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


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64(value)


def _shape(array: np.ndarray) -> str:
    return "[" + ",".join(map(str, array.shape)) + "]"


def read_examples(document: Document) -> Any:
    """Read the examples of a `:classify` or `:regress` request.

    Returns:
        An `Input` message.

    Raises:
        ServingError: INVALID_ARGUMENT.
    """
    content, result = document.content, messages.Input()
    examples = result.example_list.examples
    if "context" in content:
        _fill_example(content["context"], result.example_list_with_context.context)
        examples = result.example_list_with_context.examples
    if "examples" not in content:
        raise format_error(content, "When method is classify, key 'examples' is expected and was not found")
    if not isinstance(content["examples"], list):
        raise format_error(content, "Expecting 'examples' value to be an list/array")
    if not content["examples"]:
        raise format_error(content, "'examples' value is an empty array")
    for example in content["examples"]:
        _fill_example(example, examples.add())
    return result


def _fill_example(value: Any, example: Any) -> None:
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {json_type(value)}")
    for name, content in value.items():
        try:
            feature = example.features.feature[name]
        except (UnicodeEncodeError, ValueError) as error:
            raise invalid_argument("JSON Parse error: The surrogate pair in string is invalid.") from error
        feature.SetInParent()
        for item in content if isinstance(content, list) else [content]:
            _add_to_feature(item, name, feature)


def _add_to_feature(value: Any, name: str, feature: Any) -> None:
    if value is None or isinstance(value, list) or (isinstance(value, dict) and not is_base64(value)):
        raise invalid_argument(f"Feature: {name} has element with unexpected JSON type: {json_type(value)}")
    if isinstance(value, str | dict):
        kind, item = "bytes_list", encoded(value) if isinstance(value, str) else decode_base64(value)
    elif isinstance(value, float) or not -(2**63) <= value < 2**64:  # so large a number is no integer any more
        kind, item = "float_list", checked_decimal(value, "float", np.dtype("float32"))
    else:
        kind, item = "int64_list", int(value)
        if item >= 2**63:
            raise invalid_argument(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
    before = feature.WhichOneof("kind")
    if before not in (None, kind):
        expected = before.removesuffix("_list")
        raise invalid_argument(f"Unexpected element type in feature: {name} expecting type: {expected}")
    getattr(feature, kind).value.append(item)
