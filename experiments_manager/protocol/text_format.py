"""Small configuration files in protobuf's text format, as TensorFlow Serving reads them.

The messages `SSLConfig` and `MonitoringConfig` are not part of the package `tensorflow-serving-api`, so their few
fields are declared here, in a pool of their own that does not meet anybody else's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from experiments_manager.protocol.errors import ServerStartError

_TYPES = {"string": 9, "bool": 8}  # numbers of `FieldDescriptorProto.Type`
_MESSAGE = 11
_PACKAGE = "tensorflow.serving"

_MESSAGES = {
    "SSLConfig": [
        ("string", "server_key"),
        ("string", "server_cert"),
        ("string", "custom_ca"),
        ("bool", "client_verify"),
    ],
    "PrometheusConfig": [("bool", "enable"), ("string", "path")],
    "MonitoringConfig": [("PrometheusConfig", "prometheus_config")],
}
"""Type and name of each field; their order gives their numbers."""


def read_text_config(file: Path | str, kind: str) -> Any:
    """Read a text proto.

    Args:
        file: The file.
        kind: `SSLConfig` or `MonitoringConfig`.

    Returns:
        The message.

    Raises:
        ServerStartError: The file cannot be read, or is no such message; the text names line and field.
    """
    return parse_text_proto(file, message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{kind}"))())


def parse_text_proto(file: Path | str, message: Any) -> Any:
    """Fill any message from a file in text format, and return it.

    Raises:
        ServerStartError: As for `read_text_config`.
    """
    kind = message.DESCRIPTOR.name
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise _unparsable(file, message, "it is not text in UTF-8") from error
        reason = f"Cannot read {file}: {error.strerror}"
        raise ServerStartError(f"{reason}. Expected a {kind} in protobuf's text format.") from error
    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise _unparsable(file, message, str(error).rstrip(".")) from error


def _unparsable(file: Path | str, message: Any, reason: str) -> ServerStartError:
    """Return it in the words of TensorFlow Serving, which scripts look for on stderr."""
    known = ", ".join(field.name for field in message.DESCRIPTOR.fields)
    return ServerStartError(
        f"Error parsing text-format {message.DESCRIPTOR.full_name}: {reason}. Invalid protobuf file: '{file}'. "
        f"Expected a {message.DESCRIPTOR.name} in text format, with the fields {known}."
    )


def _declare() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="serving_text_configs.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (kind, field) in enumerate(fields, start=1):
            type_name = None if kind in _TYPES else f".{_PACKAGE}.{kind}"
            message.field.add(name=field, number=number, label=1, type=_TYPES.get(kind, _MESSAGE), type_name=type_name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


_POOL = _declare()
