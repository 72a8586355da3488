"""The decoder of a topic whose records other programs wrote, by what the settings say."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments_manager.common.errors import UserError
from experiments_manager.kafka.errors import RecordError, TopicError
from experiments_manager.kafka.formats.avro_records import AvroReader
from experiments_manager.kafka.formats.sample_values import merged, stacked, structure_of
from experiments_manager.kafka.records.record_format import MAGIC
from experiments_manager.settings.options.kafka_fields import PARTS, KafkaFields


class Fields:
    """The fields of a sample.

    Args:
        chosen: `x`, and as wanted `y` and `sample_weight`: each the name of a field, which gives one array, a list of
            names, which gives a dictionary of arrays by these names, or a dictionary of the model's names for fields.
            By default the fields that are called like the parts.

    Attributes:
        parts: The field of each part, or its fields by the model's names.
        names: Names of all the fields that are read.

    Raises:
        TopicError: It is something else.
    """

    def __init__(self, chosen: Mapping[str, Any] | None = None) -> None:
        self._is_default = not chosen
        chosen = chosen or dict(zip(PARTS, PARTS, strict=True))
        wrong = KafkaFields.problems(chosen, "kafka_fields: {}", frozenset(PARTS))
        if wrong:
            raise TopicError(f"{' '.join(wrong.values())} Correct it.")
        self.parts = {part: _named(value) for part, value in chosen.items()}
        if "x" not in self.parts or not self.parts.keys() <= set(PARTS):
            raise TopicError(
                f"kafka_fields has the keys {', '.join(map(repr, self.parts)) or 'none'}. "
                "Expected 'x', and as wanted 'y' and 'sample_weight'. Correct it."
            )
        parts = self.parts.values()
        self.names = [name for part in parts for name in (part.values() if isinstance(part, dict) else [part])]

    def of_record(self, names: Sequence[str]) -> Fields:
        """Return the fields of records that are like one with these names: targets and weights may be missing there.

        Raises:
            RecordError: A field is missing.
        """
        if not self._is_default:
            self.require(names)
            return self
        found = {part: part for part in PARTS if part in names}
        self.require([*names, "y", "sample_weight"], shown=names)
        return Fields(found)

    def require(self, names: Sequence[str], shown: Sequence[str] | None = None) -> None:
        """Raise `RecordError` if one of the fields is not among the names of a record's fields."""
        missing = [name for name in self.names if name not in names]
        if missing:
            fields = ", ".join(map(str, names if shown is None else shown))
            raise RecordError(
                f"The record has no field {', '.join(map(repr, missing))}. It has {fields or 'none'}. "
                "Name the fields that you want in kafka_fields."
            )

    def sample(self, record: Mapping[str, Any]) -> Any:
        """Return the sample of a record: `x`, `(x, y)` or `(x, y, weight)`.

        Raises:
            RecordError: A field is missing.
        """
        try:
            found = {
                part: {key: record[name] for key, name in named.items()} if isinstance(named, dict) else record[named]
                for part, named in self.parts.items()
            }
        except KeyError:
            self.require(list(record))
            raise
        for name in self.names:
            if record[name] is None:
                raise RecordError(f"The field {name!r} is null. Expected a value.")
        if "sample_weight" in found:
            return found["x"], found.get("y"), found["sample_weight"]
        return (found["x"], found["y"]) if "y" in found else found["x"]


def _named(value: Any) -> Any:
    """Return the name of a field, or names of fields by the model's names."""
    if isinstance(value, Mapping):
        return dict(value)
    return {name: name for name in value} if isinstance(value, list | tuple) else value


Read = Callable[[bytes], list[Any]]
"""Returns the samples of a record, each `x`, `(x, y)` or `(x, y, weight)`; raises `RecordError`."""


class SampleDecoder:
    """Decodes records by a function that reads one of them.

    Args:
        read: That function.
        first_records: Values of the first records of the topic; the structure follows from them. Where the lengths of
            lists differ among them, the dimension is open. Those that cannot be read are left out.
        said: What is to be done if none of them can be read.

    Attributes:
        structure: What each sample looks like.

    Raises:
        TopicError: No record can be read.
    """

    def __init__(self, read: Read, first_records: Sequence[bytes | None], said: str) -> None:
        self._read = read
        structure, reasons = None, []
        for record in first_records:
            try:
                for sample in self._samples(record):
                    of_sample = structure_of(sample)
                    structure = of_sample if structure is None else merged(structure, of_sample) or structure
            except RecordError as error:
                reasons.append(str(error))
        if not first_records:
            raise TopicError("The topic holds no records. Expected one at least, to see what its samples are like.")
        if structure is None:
            reason = reasons[0] if reasons else "They have no values."
            raise TopicError(f"None of the first {len(first_records)} records can be decoded. {reason} {said}".strip())
        self.structure = structure

    def decode(self, records: Sequence[bytes]) -> tuple[Any, np.ndarray]:
        """Return the samples of records, in their order; as `RecordFormat.decode`.

        Raises:
            RecordError: A record cannot be read, or does not fit the structure; `find_bad` tells which.
        """
        if not records:
            raise RecordError("No records to decode. Expected at least one.")
        samples, counts = [], []
        for record in records:
            of_record = self._samples(record)
            samples += of_record
            counts.append(len(of_record))
        return stacked(self.structure, samples), np.array(counts, np.int64)

    def _samples(self, record: bytes | None) -> list[Any]:
        if record is None:
            raise RecordError("The record has no value.")
        samples = self._read(record)
        if not samples:
            raise RecordError("The record holds no samples. Expected at least one.")
        return samples


def read_json(record: bytes) -> list[dict[str, Any]]:
    """Return the object that a record is, as the only one in a list.

    Raises:
        RecordError: It is none.
    """
    try:
        value = json.loads(record)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"The record is no JSON: {error}. It begins with {bytes(record[:20])!r}.") from error
    if not isinstance(value, dict):
        raise RecordError(f"The record is a JSON {type(value).__name__}. Expected an object of fields.")
    return [value]


_PACKAGE = str(Path(__file__).resolve().parents[2]) + os.sep


def reader_of(hook: Callable[[bytes], Any]) -> Callable[[bytes], list[Any]]:
    """Return a function that reads the one sample of a record by the hook, and names the place where it fails."""

    def read(record: bytes) -> list[Any]:
        try:
            return [hook(record)]
        except UserError as error:  # of a hook that is called by way of the settings, which name its place
            raise RecordError(str(error)) from error
        except Exception as error:
            raise RecordError(f"kafka_decode failed: {_place_of(error)}{type(error).__name__}: {error}") from error

    return read


def _place_of(error: Exception) -> str:
    """Return `file:line: ` of the user's line that failed; it may have called a library."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_PACKAGE)]
    of_user = [frame for frame in frames if frame.filename == frames[0].filename]
    return f"{of_user[-1].filename}:{of_user[-1].lineno}: " if of_user else ""


_BEGINNINGS = {bytes([MAGIC, 1]): "native", b"{": "json", b"Obj\x01": "avro", b"\x00\x00": "avro", b"\n": "example"}


def hook_decoder(hook: Callable[[bytes], Any], first_records: Sequence[bytes | None]) -> SampleDecoder:
    """Return a decoder of records that a hook reads.

    Args:
        hook: Returns the sample that a record's bytes hold, as `kafka_decode`.
        first_records: Values of the first records of the topic, from which the structure follows.

    Raises:
        TopicError: None of the records can be read.
    """
    return SampleDecoder(reader_of(hook), first_records, "Correct the hook kafka_decode.")


def field_decoder(
    format: str,
    first_records: Sequence[bytes | None],
    fields: Mapping[str, Any] | None = None,
    registry: str | None = None,
) -> SampleDecoder:
    """Return a decoder of JSON or Avro records.

    Args:
        format: `json` or `avro`, as `kafka_format`.
        first_records: Values of the first records of the topic, from which the structure follows.
        fields: Which fields make up a sample, as `kafka_fields`.
        registry: URL of the schema registry, as `kafka_schema_registry`.

    Raises:
        TopicError: None of the records can be read, a package is missing, or the schema registry does not answer.
    """
    if format not in ("json", "avro"):
        raise TopicError(f"Unknown format of records. Expected json or avro, got {format!r}.")
    read = read_json if format == "json" else AvroReader(registry).read
    return SampleDecoder(_of_fields(read, Fields(fields)), first_records, advice(format, first_records))


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
