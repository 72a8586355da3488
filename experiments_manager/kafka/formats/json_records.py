"""JSON records: an object of fields each."""

from __future__ import annotations

import json
from typing import Any

from experiments_manager.kafka.errors import RecordError


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
