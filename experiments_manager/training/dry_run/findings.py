"""All that a dry run finds, in one list, and what it could not look at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from experiments_manager.common.errors import UserError
from experiments_manager.common.exit_codes import ExitCode
from experiments_manager.export.servable import ExportError
from experiments_manager.settings import Problem, Settings, SettingsError, UserCodeError
from experiments_manager.settings.hooks import HOOKS
from experiments_manager.settings.schema import SETTINGS
from experiments_manager.training.hook_calls import hook_error
from experiments_manager.training.setup.boundary import translated


class DryRunError(SettingsError):
    """What a dry run found wrong, all of it.

    Attributes:
        not_looked_at: What it could not look at because of that, or at all.
    """

    def __init__(self, problems: Iterable[Problem], not_looked_at: Iterable[str], exit_code: ExitCode) -> None:
        super().__init__(problems)
        self.not_looked_at = list(not_looked_at)
        self.exit_code = exit_code
        self.args = ("\n".join([*self.args, *(f"not looked at: {text}" for text in self.not_looked_at)]),)


class Findings:
    """Collects problems while a dry run goes on.

    Args:
        settings: The experiment's.
        problems: What was found before, of the source and the values.
    """

    def __init__(self, settings: Settings, problems: Iterable[Problem] = ()) -> None:
        self._settings = settings
        self._problems = list(problems)
        self._known_before = {problem.name for problem in self._problems}
        self._errors: list[UserError] = []
        self.not_looked_at: list[str] = []

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found so far."""
        return not self._problems

    @property
    def count(self) -> int:
        """How many problems were found so far."""
        return len(self._problems)

    def said_of(self, name: str) -> bool:
        """Return whether something was wrong with a setting or hook before the dry run began."""
        return bool(self._known_before & {name, self._settings.given_name(name)})

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Inside, a part of the experiment is looked at; what is wrong with it is collected, and the rest goes on."""
        try:
            yield
        except (UserError, ExportError) as error:
            self.add(error, name)
        except Exception as error:
            found = translated(self._settings, name, error)
            if found is None:
                raise
            self.add(found, name)

    def say(self, name: str, text: str) -> None:
        """Add a problem with a setting or hook, at its place."""
        self.add(hook_error(self._settings, name, text), name)

    def skip(self, text: str) -> None:
        """Note that something could not be looked at."""
        if text not in self.not_looked_at:
            self.not_looked_at.append(text)

    def add(self, error: Exception, name: str) -> None:
        """Add what an error says; once."""
        new = [problem for problem in self._problems_of(error, name) if not self._is_known(problem)]
        self._problems += new
        if new and isinstance(error, UserError):
            self._errors.append(error)

    def _is_known(self, problem: Problem) -> bool:
        """Return whether the same was said before; the same line of the user's own raises the same in many places."""
        raised = any(
            known.place == problem.place and known.line and known.text[:40] == problem.text[:40]
            for known in self._problems
        )
        return raised or problem in self._problems

    def _problems_of(self, error: Exception, name: str) -> list[Problem]:
        if isinstance(error, SettingsError):
            return error.problems
        if isinstance(error, UserCodeError):
            text = str(error).removeprefix(f"{error.location}: {error.hook}: ")
            return [_problem(error.location, error.hook, text)]
        place, text = getattr(error, "place", None), str(error)
        text = text.removeprefix(f"{place}: ") if place else text
        head, colon, rest = text.partition(": ")
        about = head if colon and (head in HOOKS or head in SETTINGS or head == "training") else None
        return [
            _problem(place or self._settings.location(about or name), about or name, rest if about else text),
        ]

    def raise_all(self) -> None:
        """Raise what was found; the one error itself where there is but one."""
        if not self._problems:
            return
        if len(self._problems) == 1 and len(self._errors) == 1:
            only = self._errors[0]
            only.args = ("\n".join([str(only), *(f"not looked at: {text}" for text in self.not_looked_at)]),)
            raise only
        failed = len(self._errors) == len(self._problems) and all(
            isinstance(error, UserCodeError) for error in self._errors
        )
        code = ExitCode.USER_CODE_FAILED if failed else ExitCode.BAD_INPUT
        cause = self._errors[0] if self._errors else None
        raise DryRunError(self._problems, self.not_looked_at, code) from cause


def _problem(place: str, name: str, text: str) -> Problem:
    file, _, line = place.rpartition(":")
    return Problem(file, int(line), name, text) if file and line.isdigit() else Problem(place, 0, name, text)
