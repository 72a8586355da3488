"""Which fields of a record make up a sample: the setting `kafka_fields`."""

from __future__ import annotations

from typing import Annotated, Any

import annotated_types
import pydantic

from experiments_manager.settings.options.options import Options, option

PARTS = ("x", "y", "sample_weight")


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


Field = (
    str
    | Annotated[list[str], annotated_types.MinLen(1), pydantic.BeforeValidator(_as_list)]
    | Annotated[dict[str, str], annotated_types.MinLen(1)]
)
_EXPECTED = "the name of a field, or a list of names"


class KafkaFields(Options):
    """The parts of a sample, each the name of a field, a list of names, or a dictionary of the model's names."""

    x: Field | None = option(None, _EXPECTED)
    y: Field | None = option(None, _EXPECTED)
    sample_weight: Field | None = option(None, _EXPECTED)
