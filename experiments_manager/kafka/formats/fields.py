"""Which fields of a record make up the inputs, the targets and the weight of a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments_manager.kafka.errors import RecordError, TopicError
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
