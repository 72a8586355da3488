"""Examples in JSON: the requests of `:classify` and `:regress`."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments_manager.protocol import messages
from experiments_manager.protocol.status import invalid_argument
from experiments_manager.serving.api.json.requests import Document
from experiments_manager.serving.api.json.values import (
    checked_decimal,
    decode_base64,
    encoded,
    format_error,
    is_base64,
    json_type,
)


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
