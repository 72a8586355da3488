"""The base of dictionaries of options: unknown keys and wrong values are said, each with what would be right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pydantic

from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.settings.problems import shown


def option(default: Any, expected: str) -> Any:
    """Return one row of a table of options: its default, and what it may be in words."""
    return pydantic.Field(default=default, json_schema_extra={"expected": expected})


class Options(pydantic.BaseModel):
    """A dictionary of options, checked by type; an unknown key is refused.

    Attributes:
        REMEDIES: For keys, what to do instead of what is wrong.
    """

    model_config = pydantic.ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True, defer_build=True)
    REMEDIES: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def problems(
        cls, given: Mapping[str, Any], place: str = "{}", only: frozenset[str] | None = None
    ) -> dict[Any, str]:
        """Return what is wrong with given options, by their keys.

        Args:
            given: The options.
            place: How a key is called in the messages, with `{}` in the place of the key as it is written.
            only: The keys that are looked at; all of them by default.
        """
        looked_at = {key: value for key, value in given.items() if only is None or key in only}
        found: dict[Any, str] = {}
        for key in looked_at:
            if key not in cls.model_fields:
                known = f"Expected one of {', '.join(cls.model_fields)}." if cls.model_fields else "Expected none."
                hint = cls.REMEDIES.get(key) or did_you_mean(str(key), cls.model_fields) or known
                found[key] = f"{place.format(key)} is unknown. {hint}"
        try:
            cls.model_validate({key: value for key, value in looked_at.items() if key not in found})
        except pydantic.ValidationError as error:
            for item in error.errors():
                if item["loc"] and item["loc"][0] in looked_at:
                    key = item["loc"][0]
                    text = f"{place.format(key)} is wrong. Expected {cls.expected(key)}, got {shown(given[key])}."
                    found.setdefault(key, f"{text} {cls.hint(key, given[key])}".rstrip())
        return found

    @classmethod
    def expected(cls, key: str) -> str:
        """Return in words what an option may be."""
        extra = cls.model_fields[key].json_schema_extra
        return str(extra["expected"]) if isinstance(extra, dict) else "another value"

    @classmethod
    def hint(cls, key: str, value: Any) -> str:
        """Return what may be meant by a wrong value; empty where nobody knows."""
        return cls.REMEDIES.get(key, "")
