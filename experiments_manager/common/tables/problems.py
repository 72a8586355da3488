"""All that is wrong with some files, in one error."""

from __future__ import annotations

from collections.abc import Iterable

from experiments_manager.common.errors import UserError

MOST_SHOWN = 50
"""Problems that a message lists; more of them say nothing new."""


class DataFileError(UserError, ValueError):
    """Data that cannot be read; the message says which file and line, and how to fix it."""


class Problems:
    """Collects what is wrong, so that all of it is told at once."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, place: object, text: str) -> None:
        """Note a problem; a problem that is noted twice is told once."""
        line = f"{place}: {text}"
        if line not in self._texts[-20:]:
            self._texts.append(line)

    def refuse(self) -> None:
        """Raise them.

        Raises:
            DataFileError: There are any.
        """
        refuse(self._texts)


def refuse(problems: Iterable[str]) -> None:
    """Raise all problems as one error, if there are any.

    Raises:
        DataFileError: There are.
    """
    found = list(problems)
    if not found:
        return
    head = [f"{len(found):,} problems:"] if len(found) > 1 else []
    more = [f"… and {len(found) - MOST_SHOWN:,} problems more."] if len(found) > MOST_SHOWN else []
    raise DataFileError("\n".join([*head, *found[:MOST_SHOWN], *more]))
