"""What can be wrong with a settings module, and how it is said.

Every message reads "what is wrong. Expected …, got …. How to fix it." and carries its place in the user's file, so
that an editor or a terminal can jump there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from experiments_manager.common.errors import UserError
from experiments_manager.common.exit_codes import ExitCode

OVERRIDE = "override"
"""Stands in the place of a file where the problem lies in an override and not in a file."""

_SHOWN_LENGTH = 80
"""Longest value that a message shows whole, in characters."""


@dataclasses.dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong, at one place.

    Attributes:
        file: The file it is in, or the word `override`.
        line: Line in that file, counted from 1; 0 where the whole file is meant.
        name: The setting, hook, parameter or imported name that it is about.
        text: One to three sentences: what is wrong, what was expected, how to fix it.
        is_warning: Whether the file can be used all the same.
        meant: A word at that place and what is probably meant by it; an empty text: nothing, leave it out.
    """

    file: str
    line: int
    name: str
    text: str
    is_warning: bool = dataclasses.field(default=False, compare=False)
    meant: tuple[str, str] | None = dataclasses.field(default=None, compare=False)

    @property
    def place(self) -> str:
        """`file:line`, or the file alone where no line is known."""
        return f"{self.file}:{self.line}" if self.line else self.file

    def __str__(self) -> str:
        mark = "warning: " if self.is_warning else ""
        return f"{self.place}: {mark}{self.name}: {self.text}"


class SettingsError(UserError):
    """A settings module cannot be used.

    Attributes:
        problems: All that was found, in the order of files and lines.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(set(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class UserCodeError(UserError):
    """The user's own code raised while the engine was calling it.

    The exception that it raised is the `__cause__`.

    Attributes:
        hook: The hook that was being called, by the name that it bears in the user's file.
        location: `file:line` of the deepest frame in the user's own files.
        cause: The exception that the user's code raised.
    """

    exit_code = ExitCode.USER_CODE_FAILED

    def __init__(self, hook: str, location: str, cause: BaseException, text: str | None = None) -> None:
        """Make the error.

        Args:
            hook: The hook's name.
            location: Where it raised.
            cause: What it raised.
            text: What to say of it; by default what the cause says.
        """
        self.hook = hook
        self.location = location
        self.cause = cause
        super().__init__(f"{location}: {hook}: {text or f'{type(cause).__name__}: {cause}'}")
        self.__cause__ = cause


def problem_at(file: Path | str, line: int, name: str, text: str) -> Problem:
    """Make a problem whose file is shown relative to the working directory where that is shorter."""
    return Problem(display_path(file), line, name, text)


def shown(value: object) -> str:
    """Return a value as it is written in Python, cut where it is long."""
    try:
        text = repr(value)
    except Exception:  # the value's own `__repr__`; the message about it must not fail for that
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 1] + "…"


def display_path(file: Path | str) -> str:
    """Return the path as a person would type it: relative where the file lies under the working directory."""
    path = Path(file)
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)
