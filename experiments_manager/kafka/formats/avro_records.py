"""Avro records: of a schema registry (Confluent's wire format), or files with a schema of their own."""

from __future__ import annotations

import io
import json
from typing import Any

from experiments_manager.common.installation import install_command
from experiments_manager.kafka.connection import with_environment
from experiments_manager.kafka.errors import RecordError, TopicError

_CONTAINER = b"Obj\x01"
_WIRE = b"\x00"
_ID_END = 5
_NOT_FOUND = 404


class AvroReader:
    """Reads the objects that Avro records are.

    Args:
        registry: URL of the schema registry, in which `${NAME}` is a variable of the environment; needed for records
            in the registry's wire format: a zero byte, the schema's number in four bytes, the object.

    Raises:
        TopicError: A package is missing, or the URL is none.
    """

    def __init__(self, registry: str | None = None) -> None:
        try:
            import fastavro
        except ImportError as error:
            raise TopicError(
                f"Avro records need the package fastavro. Install it: {install_command('kafka')}"
            ) from error
        self._avro = fastavro
        self._registry = Registry(registry) if registry else None

    def read(self, record: bytes) -> list[dict[str, Any]]:
        """Return the objects of a record.

        Raises:
            RecordError: It is malformed.
            TopicError: The schema registry does not answer, or refuses.
        """
        if record.startswith(_WIRE) and len(record) >= _ID_END:
            schema = self._schema(int.from_bytes(record[1:_ID_END], "big"))
            stream = io.BytesIO(record)
            stream.seek(_ID_END)
            rows = self._parsed(lambda: [self._avro.schemaless_reader(stream, schema, None)])
            if stream.tell() != len(record):
                raise RecordError(f"The record is longer than its schema says: {len(record)} bytes.")
        elif record.startswith(_CONTAINER):
            rows = self._parsed(lambda: list(self._avro.reader(io.BytesIO(record))))
        else:
            raise RecordError(
                f"The record does not begin like Avro: {record[:8].hex(' ') or 'it is empty'}. "
                "Expected 00 and the number of a schema, or 'Obj' 01."
            )
        if not all(isinstance(row, dict) for row in rows):
            raise RecordError(f"The record is an Avro {type(rows[0]).__name__}. Expected a record of fields.")
        return rows

    def _schema(self, number: int) -> Any:
        if self._registry is None:
            raise RecordError(
                f"The record names schema {number} of a schema registry. Expected the registry's address, got none. "
                "Set kafka_schema_registry."
            )
        return self._registry.schema(number)

    def _parsed(self, parse: Any) -> list[Any]:
        try:
            return parse()
        except Exception as error:  # whatever a parser meets in bytes that are none of its own
            raise RecordError(f"The record does not fit its Avro schema: {type(error).__name__} {error}.") from error


class Registry:
    """A schema registry, asked once for each schema.

    Args:
        url: Its address, as `kafka_schema_registry`; it may hold a user and a password.

    Raises:
        TopicError: A package is missing, or the URL is none.
    """

    def __init__(self, url: str) -> None:
        self._shown = url  # as it stands in the settings: the variables of the environment may be secrets
        try:
            from confluent_kafka.schema_registry import SchemaRegistryClient
        except ImportError as error:
            raise TopicError(
                f"A schema registry needs the package {error.name}. Install it: {install_command('kafka')}"
            ) from error
        try:
            self._client = SchemaRegistryClient({"url": with_environment("kafka_schema_registry", url)})
        except ValueError as error:
            raise TopicError(
                f"Invalid kafka_schema_registry. Expected a URL such as http://localhost:8081, got {self._place}."
            ) from error
        self._known: dict[int, Any] = {}

    @property
    def _place(self) -> str:
        scheme, _, rest = self._shown.rpartition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}" if scheme else rest.rpartition("@")[2]

    def schema(self, number: int) -> Any:
        """Return a schema by its number.

        Raises:
            RecordError: The registry does not have it, or it is not of Avro.
            TopicError: The registry does not answer, or refuses.
        """
        if number not in self._known:
            self._known[number] = self._load(number)
        if isinstance(self._known[number], RecordError):
            raise self._known[number]
        return self._known[number]

    def _load(self, number: int) -> Any:
        """Return a schema, or the error that there is none, so that it is asked for once, too."""
        from confluent_kafka.schema_registry.error import SchemaRegistryError

        try:
            found = self._client.get_schema(number)
            if (found.schema_type or "AVRO") != "AVRO":
                return RecordError(f"Schema {number} is of {found.schema_type}. Expected Avro. Set kafka_format.")
            return self._parsed(found, {})
        except SchemaRegistryError as error:
            if error.http_status_code == _NOT_FOUND:
                return RecordError(f"The schema registry {self._place} has no schema {number}.")
            raise TopicError(
                f"The schema registry {self._place} does not give schema {number}: {error.error_message} "
                f"(HTTP {error.http_status_code}). Look at its log, and at user and password in kafka_schema_registry."
            ) from error
        except Exception as error:  # of the HTTP client, whichever one it is, and of the parser
            raise TopicError(
                f"The schema registry {self._place} cannot be used: {type(error).__name__}. "
                "Start it, or correct kafka_schema_registry."
            ) from None

    def _parsed(self, found: Any, named: dict[str, Any]) -> Any:
        """Return a schema in the parser's form; those that it refers to go into `named` first."""
        import fastavro

        for reference in found.references or []:
            version = self._client.get_version(reference.subject, reference.version)
            self._parsed(version.schema, named)
        return fastavro.parse_schema(json.loads(found.schema_str), named_schemas=named)
