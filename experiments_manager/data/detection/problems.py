"""All that is wrong with some files, in one error."""

from __future__ import annotations

from experiments_manager.data.tables import DataFileError

_SHOWN = 200
"""Problems that a message lists; more of them say nothing new."""


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
        if not self._texts:
            return
        shown = self._texts[:_SHOWN]
        if len(self._texts) > _SHOWN:
            shown.append(f"… and {len(self._texts) - _SHOWN:,} problems more.")
        if len(self._texts) > 1:
            shown.insert(0, f"{len(self._texts):,} problems:")
        raise DataFileError("\n".join(shown))
