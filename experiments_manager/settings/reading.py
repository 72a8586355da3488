"""Reading values and hooks from a settings module that was executed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import pydantic

from experiments_manager.dialects import Dialect
from experiments_manager.settings.bound_hook import Hook, make_hook
from experiments_manager.settings.hooks import HOOKS, HOOKS_BY_OTHER_NAME, HookSpec
from experiments_manager.settings.overrides import Override
from experiments_manager.settings.problems import OVERRIDE, Problem, shown
from experiments_manager.settings.schema import BY_OTHER_NAME, SETTINGS, SettingSpec, Values
from experiments_manager.settings.source.module_source import Source
from experiments_manager.settings.source.namespace import Namespace
from experiments_manager.settings.value_checks import fits
from experiments_manager.settings.value_suggestions import remedy


class ModuleReader:
    """Reads one executed module.

    A file of a dialect that is not strict may bind names for itself that are settings or hooks here. Such a name is
    taken for the file's own where its other name is bound as well, or where it does not fit.

    Attributes:
        problems: What is wrong with the values and hooks read so far.
        unknown: Settings, by canonical name, whose values are not those of the module: they are wrong, or unknown.
        remarks: What the user should know although it is no problem.
    """

    def __init__(
        self,
        source: Source,
        names: Namespace,
        overrides: Mapping[str, Override],
        effective: Mapping[str, Any],
        dialect: Dialect,
    ) -> None:
        """Prepare the reading.

        Args:
            source: Source of the settings module.
            names: The names that it binds.
            overrides: The overrides by canonical name.
            effective: What they came to.
            dialect: The form of the file.
        """
        self._source = source
        self._names = names
        self._overrides = overrides
        self._effective = effective
        self._dialect = dialect
        self.problems: list[Problem] = []
        self.unknown: set[str] = set()
        self.remarks: list[str] = []

    def problem(self, name: str, text: str, key: str | None = None) -> Problem:
        """Return a problem with a setting or hook, or with a key of the dictionary that it is, at its place."""
        if name in self._overrides:
            return Problem(OVERRIDE, 0, self._overrides[name].given_name, text)
        bound = self._bound_name(SETTINGS.get(name) or HOOKS[name])
        line = self._source.line_of_key(bound, key) if key is not None else self._source.line(bound)
        return self._source.problem(line or 1, bound, text)

    def values(self) -> Values:
        """Return all settings; one of a wrong type is a problem and keeps its default."""
        given = dict(self._given_values())
        try:
            return _validated(given)
        except pydantic.ValidationError as error:
            for name in dict.fromkeys(str(item["loc"][0]) for item in error.errors()):
                value = given.pop(name)
                if self._is_files_own(name):
                    continue
                self.unknown.add(name)
                text = f"invalid value. Expected {SETTINGS[name].type_text}, got {shown(value)}."
                self.problems.append(self.problem(name, f"{text} {remedy(value, SETTINGS[name])}"))
            return _validated(given)

    def _given_values(self) -> Iterator[tuple[str, Any]]:
        for name, entry in SETTINGS.items():
            bound = self._bound_name(entry)
            if name in self._effective and not (name == "hparams" and bound in self._names):
                yield name, self._effective[name]
            elif self._names.is_unknown(bound):
                self.unknown.add(name)
            elif self._is_given(bound):
                self._remark_on_second(name, bound)
                value = self._names[bound]
                yield name, entry.alias.to_canonical(value) if bound != name else value

    def hooks(self, needs_model: bool) -> dict[str, Hook]:
        """Return the hooks that the settings module gives, by canonical name.

        Args:
            needs_model: Whether it must define `model`, since no model file does.
        """
        found = {}
        for name, entry in HOOKS.items():
            if name == "model" and not needs_model:
                continue
            bound = self._bound_name(entry)
            if name not in self._effective and self._names.is_unknown(bound):
                continue
            value = self._effective.get(name, self._names.get(bound))
            if name in self._effective or self._is_given(bound):
                self._remark_on_second(name, bound)
                hook = self._hook(entry, bound, value)
                if hook is not None:
                    found[name] = hook
                elif value is None and name in ("dataset", "model"):
                    text = f"it is None. Expected {entry.expected}. Give it a value."
                    self.problems.append(self.problem(name, text))
            elif entry.required or name == "model":
                text = f"it is missing. Expected {entry.expected}. Add it."
                self.problems.append(self._source.problem(1, name, text))
        return found

    def _hook(self, entry: HookSpec, bound: str, value: Any) -> Hook | None:
        if value is None:
            return None
        by_position = self._dialect.binds_by_position(entry.name, bound)
        hook, wrong = make_hook(entry, bound, value, self._source.file, self._source.line(bound), by_position)
        if (wrong or not fits(entry.name, value)) and self._is_files_own(entry.name):
            return None
        self.problems += [self._source.problem(hook.line or 1, bound, text) for text in wrong]
        return hook

    def _remark_on_second(self, name: str, bound: str) -> None:
        """Say that of two names of one setting the other one counts, where the file makes no use of the other."""
        if not self._dialect.is_strict and bound != name and self._is_given(name) and name not in self._source.used:
            place = self._source.problem(self._source.line(name) or 1, name, "").place
            self.remarks.append(
                f"{place}: {name} is treated as a variable of the file, since {bound} gives the setting."
            )

    def _is_given(self, bound: str) -> bool:
        """Return whether a name is bound to more than a module, as by `from keras import callbacks`."""
        return bound in self._names and not isinstance(self._names[bound], ModuleType)

    def _bound_name(self, entry: SettingSpec | HookSpec) -> str:
        """Return the name under which the module gives a setting or hook: the other one, where that is bound."""
        other = entry.other_name
        return other if other and (other in self._names or other in self._names.unknown) else entry.name

    def _is_files_own(self, name: str) -> bool:
        """Return whether what does not fit is no mistake, but the file's own name; remarks on it."""
        bound = self._bound_name(SETTINGS.get(name) or HOOKS[name])
        meant = name in self._dialect.names_before or bound in BY_OTHER_NAME or bound in HOOKS_BY_OTHER_NAME
        if self._dialect.is_strict or meant or name in ("model", *self._overrides):
            return False
        place = self.problem(name, "").place
        self.remarks.append(
            f"{place}: {bound} is treated as a variable of the file, since its value is invalid for the setting."
        )
        return True


def _validated(given: dict[str, Any]) -> Values:
    values = Values(**given)
    if isinstance(given.get("hparams"), dict):
        values.hparams = given["hparams"]  # the module's own, which its functions read; pydantic has made a copy
    return values
