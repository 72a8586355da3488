"""Decoding a topic whose records have several structures, each as its own structure says."""

from __future__ import annotations

import dataclasses
import operator
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments_manager.kafka.errors import RecordError
from experiments_manager.kafka.records.columns import checked
from experiments_manager.kafka.records.group_decoding import decode_in_groups, find_bad
from experiments_manager.kafka.records.record_format import MAGIC, RecordFormat
from experiments_manager.kafka.records.structure import FORMAT_VERSION, Structure

MOST_ASKED = 100
"""How often structures are loaded again."""

_ID = slice(4, 8)
_BEGINNING = bytes([MAGIC, FORMAT_VERSION])


def structure_id(record: bytes | None) -> bytes:
    """Return the id of the structure that a record names, as it stands there; empty where it is no such record."""
    return record[_ID] if record and record.startswith(_BEGINNING) else b""


class StructureTable:
    """The formats of a topic's records by the id of the structure that they name.

    Args:
        structures: The structures of the topic by their id, the newest one last, as `load_structures` gives them.
        reload: Gives them again, where a record names a structure that may have been stored since. It is asked once
            an id and `MOST_ASKED` times in all: damaged records name any number of structures, and asking takes time.
    """

    def __init__(
        self, structures: Mapping[int, Structure], reload: Callable[[], Mapping[int, Structure]] | None = None
    ) -> None:
        self._formats = {number: RecordFormat(structure) for number, structure in structures.items()}
        self._reload, self._asked = reload, set[int]()

    def find(self, identity: bytes) -> RecordFormat | None:
        """Return the format of records that name a structure, or `None` where it is nowhere."""
        if len(identity) != 4:
            return None
        [number] = struct.unpack("<I", identity)
        is_asked = self._reload and number not in self._asked and len(self._asked) < MOST_ASKED
        if number not in self._formats and is_asked:
            self._asked.add(number)
            found = {new: RecordFormat(structure) for new, structure in self._reload().items()}
            self._formats = found | self._formats
        return self._formats.get(number)


class TopicFormat:
    """Decodes the records of a topic.

    Records of an older structure are taken if their samples can pass for those of the newest one: the same nest, names
    and dtypes, and shapes that fit. All others are bad records.

    Args:
        structures: The structures of the topic by their id, the newest one last, as `load_structures` gives them.
        reload: See `StructureTable`.

    Attributes:
        structure: What each sample looks like: the newest of the structures. It stays when others are found.

    Raises:
        RecordError: There is no structure.
    """

    def __init__(
        self, structures: Mapping[int, Structure], reload: Callable[[], Mapping[int, Structure]] | None = None
    ) -> None:
        if not structures:
            raise RecordError(
                "The topic has no structure, so `kafka produce` did not write it. Expected one beside it, got none. "
                "Set kafka_format to what wrote its records, write a hook kafka_decode, or produce the topic again."
            )
        self.structure = list(structures.values())[-1]
        self._newest = RecordFormat(self.structure)
        self._table = StructureTable(structures, reload)
        self._newest_id = self.structure.id.to_bytes(4, "little")

    def decode(self, records: Sequence[bytes]) -> tuple[Any, np.ndarray]:
        """Return the samples of records, in their order; as `RecordFormat.decode`.

        Raises:
            RecordError: A record is malformed, or of another structure that does not fit; `bad_records` tells which.
        """
        if not records:
            raise RecordError("No records to decode. Expected at least one.")
        if None in (records[0], records[-1]):
            raise RecordError("The record has no value.")
        # Structures change rarely: where the first and the last record have the newest one, all have it, as a rule.
        if records[0][_ID] == records[-1][_ID] == self._newest_id:
            try:
                return self._newest.decode(records)
            except RecordError:
                if len({record[_ID] for record in records if record is not None}) == 1:
                    raise
        if None in records:
            raise RecordError("The record has no value.")
        leaves, counts = decode_in_groups(records, operator.itemgetter(_ID), self._decode_group)
        return self.structure.pack(leaves), counts

    def bad_records(self, records: Sequence[bytes | None]) -> dict[int, str]:
        """Return which of the records cannot be decoded, by their index, and why."""
        return find_bad(self.decode, records)

    def _decode_group(self, records: list[bytes]) -> tuple[list[Any], np.ndarray]:
        """Return the leaves of records that share a structure, in the order of the newest one, and their counts."""
        identity = structure_id(records[0])
        # A record whose structure is nowhere is left to the newest format: it says what is wrong with it.
        form = self._newest if identity == self._newest_id else self._table.find(identity) or self._newest
        samples, counts = form.decode(records)
        if form is self._newest:
            return self.structure.flatten(samples), counts
        if _names(form.structure) != _names(self.structure):
            raise self._other(form.structure)
        leaves = self.structure.flatten(samples)
        try:
            leaves = [checked(leaf, array) for leaf, array in zip(self.structure.leaves, leaves, strict=True)]
        except RecordError as error:
            raise self._other(form.structure) from error
        return leaves, counts

    def _other(self, structure: Structure) -> RecordError:
        return RecordError(
            f"The record has another structure. Expected {self.structure}, got {structure}. "
            "Produce these samples to a topic of their own."
        )


def _names(structure: Structure) -> Any:
    """Return the nest with all at each leaf that must be the same: its rank, but not its sizes."""
    return structure.pack([dataclasses.replace(leaf, shape=(len(leaf.shape),)) for leaf in structure.leaves])
