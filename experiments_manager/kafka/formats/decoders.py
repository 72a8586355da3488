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
from experiments_manager.kafka.formats.fields import Fields
from experiments_manager.kafka.formats.samples import merged, stacked, structure_of
from experiments_manager.kafka.records.group_decoding import find_bad
from experiments_manager.kafka.records.record_format import MAGIC

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
            RecordError: A record cannot be read, or does not fit the structure; `bad_records` tells which.
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

    def bad_records(self, records: Sequence[bytes | None]) -> dict[int, str]:
        """Return which of the records cannot be decoded, by their index, and why."""
        return find_bad(self.decode, records)


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
