"""Finding the few bad records among many good ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from experiments_manager.kafka.errors import RecordError


def find_bad(decode: Callable[[list[bytes]], Any], records: Sequence[bytes | None]) -> dict[int, str]:
    """Return which of the records cannot be decoded, by their index, and why.

    Halves are decoded and halved again, so that few bad ones among many good ones cost a few decodings of all of them.

    Args:
        decode: Decodes records that have a value; raises `RecordError` if one of them is bad.
        records: Values of messages; those that are `None` are bad.
    """
    reasons = {index: "The record has no value." for index, record in enumerate(records) if record is None}
    there = [(index, record) for index, record in enumerate(records) if record is not None]
    waiting = [there] if there else []
    while waiting:
        some = waiting.pop()
        try:
            decode([record for _, record in some])
        except RecordError as error:
            if len(some) == 1:
                reasons[some[0][0]] = str(error)
            else:
                middle = len(some) // 2
                waiting += [some[middle:], some[:middle]]
    return dict(sorted(reasons.items()))
