"""What the names that a module has bound come to: values, hooks, and what is wrong with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from experiments_manager.dialects import Dialect
from experiments_manager.settings.bound_hook import Hook
from experiments_manager.settings.hooks import HOOKS, HOOKS_BY_ANY_NAME
from experiments_manager.settings.overrides import HPARAMS, Override, overrides_of_unassigned
from experiments_manager.settings.problems import OVERRIDE, Problem, shown
from experiments_manager.settings.reading import ModuleReader
from experiments_manager.settings.schema import BY_ANY_NAME, SETTINGS, Values
from experiments_manager.settings.source.module_source import Source
from experiments_manager.settings.source.namespace import Namespace
from experiments_manager.settings.value_checks import fits, violations
from experiments_manager.settings.value_suggestions import is_valid, remedy


@dataclasses.dataclass
class Validation:
    """What a module gives.

    Attributes:
        values: All settings; those that are wrong or unknown at their defaults.
        hooks: The hooks that are known, by canonical name.
        effective: What the overrides came to, by canonical name.
        problems: What is wrong with values, hooks and overrides.
    """

    values: Values
    hooks: dict[str, Hook]
    effective: dict[str, Any]
    problems: list[Problem]
    _reader: ModuleReader

    @property
    def remarks(self) -> list[str]:
        """What the user should know although it is no problem."""
        return self._reader.remarks

    @property
    def wrong(self) -> frozenset[str]:
        """Names of the module whose values are wrong, `hparams` aside, whose other entries are of use all the same."""
        return frozenset(problem.name for problem in self.problems if problem.file != OVERRIDE) - {"hparams"}

    def problem(self, name: str, text: str) -> Problem:
        """Return a problem with a setting or hook, at the place that gives it."""
        return self._reader.problem(name, text)


def validate(source: Source, namespace: Namespace, overrides: Mapping[str, Override], dialect: Dialect) -> Validation:
    """Read and check what a module has bound; of names that are unknown nothing is said.

    Args:
        source: The module.
        namespace: Its names, bound by executing it or by following its source.
        overrides: The overrides by canonical name.
        dialect: The form of the file.
    """
    effective, problems = _overrides_in(source, namespace, overrides)
    reader = ModuleReader(source, namespace, overrides, effective, dialect)
    values = reader.values()
    hooks = reader.hooks(needs_model=values.model_file is None and "model_file" not in reader.unknown)
    given = {name: hook.value for name, hook in hooks.items()}
    problems += reader.problems
    problems += [reader.problem(*violation) for violation in violations(values, given, reader.unknown)]
    return Validation(values, hooks, effective, problems, reader)


def with_values(problems: Iterable[Problem], namespace: Namespace, meant: Mapping[str, str]) -> list[Problem]:
    """Say of misspelt names, in the same breath, that their values will not do either.

    Args:
        problems: Among others those that ask "Did you mean …?".
        namespace: Names of the module.
        meant: Settings and hooks by the names that are misspelt for them.
    """
    notes: dict[str, str] = {}
    for name, right in meant.items():
        if name in namespace:
            notes[name] = notes[right] = _invalid(namespace[name], right)
    ask = " Did you mean"
    return [
        dataclasses.replace(problem, text=problem.text.replace(ask, notes.get(problem.name, "") + ask, 1))
        for problem in problems
    ]


def _invalid(value: Any, right: str) -> str:
    """Return what is wrong with a value under the name that is meant; empty where nothing is."""
    setting, hook = BY_ANY_NAME.get(right), HOOKS_BY_ANY_NAME.get(right)
    if setting is not None and not is_valid(value, setting):
        text = f"Expected {setting.type_text}, got {shown(value)}. {remedy(value, setting)}"
    elif hook is not None and not fits(hook.name, value):
        text = f"Got {shown(value)}."
    else:
        return ""
    return f" Its value does not fit, either. {text}"


def problems_of_overrides(overrides: Mapping[str, Override]) -> list[Problem]:
    """Return what is wrong with overrides of settings whatever the file says."""
    return overrides_of_unassigned({name: item for name, item in overrides.items() if name in SETTINGS}, {})[1]


def _overrides_in(
    source: Source, namespace: Namespace, overrides: Mapping[str, Override]
) -> tuple[dict[str, Any], list[Problem]]:
    """Return what the overrides come to in a module, and what is wrong with them."""
    unknown_hparams = namespace.is_unknown("hparams")
    if "hparams" not in namespace and not unknown_hparams and any(name.startswith(HPARAMS) for name in overrides):
        namespace["hparams"] = {}
    problems = list(_undone(source, namespace.broken_overrides()))
    problems += namespace.problems
    namespace.release()
    failed = {problem.name for problem in namespace.problems}
    late = {
        name: override
        for name, override in overrides.items()
        if name not in namespace.effective and override.given_name not in failed
        if not (name.startswith(HPARAMS) and unknown_hparams and _may_be_key(source, name.removeprefix(HPARAMS)))
        if not (name in HOOKS and any(map(namespace.is_unknown, (name, HOOKS[name].other_name or name))))
    }
    hparams = namespace.get("hparams", {})
    effective, found = overrides_of_unassigned(late, hparams if isinstance(hparams, dict) else {})
    return namespace.effective | effective, problems + found


def _may_be_key(source: Source, key: str) -> bool:
    """Return whether `hparams`, of which nothing is known, may have a key: unreadable lines only where they name it."""
    return "hparams" not in source.readable.lost_names or key in source.readable.lost_words


def _undone(source: Source, names: Iterable[str]) -> Iterable[Problem]:
    for name in names:
        text = (
            "the module changes this after assigning it, which undoes the override. Expected an assignment at "
            "the top level. Derive the changed value under another name."
        )
        yield source.problem(source.line(name.partition(".")[0]) or 1, name, text)
