"""Decoding records that are read one at a time, whatever reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments_manager.kafka.errors import RecordError, TopicError
from experiments_manager.kafka.formats.samples import merged, stacked, structure_of
from experiments_manager.kafka.records.bad_records import find_bad

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
