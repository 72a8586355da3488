"""Names that settings had in the legacy framework, and how its values read here; the table `schema.py` holds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class LegacyName:
    """A name that the legacy framework used, and how its values read here.

    Attributes:
        name: The legacy name.
        to_canonical: Turns a legacy value into a canonical one.
        to_legacy: Turns a canonical value into a legacy one, for code that reads it by the legacy name.
    """

    name: str
    to_canonical: Callable[[Any], Any] = lambda value: value
    to_legacy: Callable[[Any], Any] = lambda value: value


def switch(name: str, on: Any) -> LegacyName:
    """Return a legacy boolean that is a value or `None` now."""

    def to_canonical(value: Any) -> Any:
        return (on if value else None) if isinstance(value, bool) else value

    return LegacyName(name, to_canonical, lambda value: value is not None)


def last_version_only(name: str) -> LegacyName:
    """Return the legacy boolean `save_only_last_best_model`, which is a number of versions now (0 keeps all)."""

    def to_canonical(value: Any) -> Any:
        return int(value) if isinstance(value, bool) else value

    return LegacyName(name, to_canonical, lambda value: value == 1)
