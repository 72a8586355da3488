"""The decoder of a topic whose records other programs wrote, by what the settings say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments_manager.kafka.errors import TopicError
from experiments_manager.kafka.formats.avro_records import AvroReader
from experiments_manager.kafka.formats.fields import Fields
from experiments_manager.kafka.formats.hook import reader_of
from experiments_manager.kafka.formats.json_records import read_json
from experiments_manager.kafka.formats.sample_decoder import SampleDecoder
from experiments_manager.kafka.records.record_format import MAGIC

_BEGINNINGS = {bytes([MAGIC, 1]): "native", b"{": "json", b"Obj\x01": "avro", b"\x00\x00": "avro", b"\n": "example"}


def make_decoder(
    format: str,
    *,
    fields: Mapping[str, Any] | None = None,
    registry: str | None = None,
    hook: Callable[[bytes], Any] | None = None,
    first_records: Sequence[bytes | None],
) -> SampleDecoder:
    """Return a decoder of JSON or Avro records, or of those that a hook reads.

    Args:
        format: `json` or `avro`, as `kafka_format`; of no importance if there is a hook.
        fields: Which fields make up a sample, as `kafka_fields`.
        registry: URL of the schema registry, as `kafka_schema_registry`.
        hook: Returns the sample that a record's bytes hold, as `kafka_decode`.
        first_records: Values of the first records of the topic, from which the structure follows.

    Raises:
        TopicError: None of the records can be read, a package is missing, or the schema registry does not answer.
    """
    if hook is not None:
        return SampleDecoder(reader_of(hook), first_records, "Correct the hook kafka_decode.")
    readers: dict[str, Callable[[], Callable[[bytes], list[dict[str, Any]]]]] = {
        "json": lambda: read_json,
        "avro": lambda: AvroReader(registry).read,
    }
    if format not in readers:
        raise TopicError(f"Unknown format of records. Expected {' or '.join(readers)}, got {format!r}.")
    return SampleDecoder(_of_fields(readers[format](), Fields(fields)), first_records, advice(format, first_records))


def advice(format: str, first_records: Sequence[bytes | None]) -> str:
    """Return what to set if records cannot be decoded by a format, going by how the first of them begins."""
    first = next((record for record in first_records if record), b"")
    looks = next((name for start, name in _BEGINNINGS.items() if first.startswith(start)), format)
    return f"They look like kafka_format = {looks!r}." if looks != format else ""


def _of_fields(read: Callable[[bytes], list[dict[str, Any]]], fields: Fields) -> Callable[[bytes], list[Any]]:
    """Return a function that reads the samples of a record; the first good record says which fields they have."""
    fixed: Fields | None = None

    def samples(record: bytes) -> list[Any]:
        nonlocal fixed
        rows = read(record)
        if fixed is None and rows:
            fixed = fields.of_record(list(rows[0]))
        return [fixed.sample(row) for row in rows if fixed]

    return samples
