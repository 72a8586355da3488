"""The names of a module while it is executed, with overrides put in at each assignment."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, MutableMapping
from typing import Any

from experiments_manager.common.machine import local_copies
from experiments_manager.settings.hooks import HOOKS, HOOKS_BY_ANY_NAME
from experiments_manager.settings.overrides import (
    ADDED_BY_LAUNCHERS,
    HPARAMS,
    InvalidValueError,
    Override,
    convert_for_hook,
    convert_for_setting,
    convert_like,
)
from experiments_manager.settings.problems import OVERRIDE, Problem
from experiments_manager.settings.schema import BY_ANY_NAME, SETTINGS


class Namespace(MutableMapping[str, Any]):
    """Where Python puts what a module binds at its top level.

    Python's `exec` accepts any mapping for local names. This one is told of every binding, whatever its form (an
    assignment, a loop, an import, a definition), puts the override in its place, and writes the result into the
    module's own dictionary, in which functions look up their globals. So whatever the module derives from a value
    follows.

    Attributes:
        effective: What the overrides came to, by canonical name.
        problems: Overrides that do not fit what they replace.
        unknown: Names that the module binds to what nobody knows, because the statement that does so failed, or was
            not executed.
        all_unknown: Whether any further name may be bound, as by a star import that was not executed.
    """

    def __init__(self, names: dict[str, Any], overrides: dict[str, Override], own_names: Collection[str] = ()) -> None:
        """Prepare the namespace.

        Args:
            names: The module's dictionary.
            overrides: The overrides by canonical name.
            own_names: Names that are the file's own although a setting is called so.
        """
        self._names = names
        self._overrides = overrides
        self._own_names = own_names
        self._placed: dict[str, Any] = {}
        self.effective: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self.unknown: set[str] = set()
        self.all_unknown = False
        self._withheld: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        return self._names[name]

    def __setitem__(self, name: str, value: Any) -> None:
        value = _of_copies(name, value)
        self._names[name] = value if name in self._own_names else self._replaced(name, value)
        self.unknown.discard(name)
        if name in self._withheld:
            self.forget([name])

    def __delitem__(self, name: str) -> None:
        del self._names[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def forget(self, names: Iterable[str]) -> None:
        """Say that nobody knows what these names are bound to."""
        for name in names:
            self._names.pop(name, None)
            self.unknown.add(name)

    def forget_all(self) -> None:
        """Say that any name may be bound to what nobody knows."""
        self.all_unknown = True
        self.forget([name for name in self._names if not name.startswith("__")])

    def withhold(self, names: Iterable[str]) -> None:
        """Let names be unknown whatever is assigned to them from now on, so that nothing is made of their values."""
        self._withheld.update(names)

    def is_unknown(self, name: str) -> bool:
        """Return whether a name may be bound although there is no value for it."""
        return name in self.unknown or (self.all_unknown and name not in self._names)

    def _replaced(self, name: str, value: Any) -> Any:
        if name == "hparams" and isinstance(value, dict) and "hparams" not in self._overrides:
            return self._with_entries(value)
        canonical = _canonical_name(name)
        if canonical is None or canonical not in self._overrides:
            return value
        override = self._overrides[canonical]
        try:
            placed = self._for_name(name, override, value)
        except InvalidValueError as error:
            self.problems.append(Problem(OVERRIDE, 0, override.given_name, str(error)))
            return value
        if name == "hparams":
            return self._with_entries(placed)
        self._placed[name] = placed
        return placed

    def _for_name(self, name: str, override: Override, current: Any) -> Any:
        entry = SETTINGS.get(override.name)
        if entry is None:
            self.effective[override.name] = value = convert_for_hook(override, HOOKS[override.name], current)
            return (lambda *_, **__: value) if callable(current) and not callable(value) else value
        self.effective[override.name] = value = convert_for_setting(override, entry)
        if entry.alias and name == entry.alias.name:
            return entry.alias.from_canonical(value)
        return value

    def _with_entries(self, hparams: dict[str, Any]) -> dict[str, Any]:
        entries = {name[len(HPARAMS) :]: item for name, item in self._overrides.items() if name.startswith(HPARAMS)}
        if not entries:
            return hparams
        pinned = OverriddenDict(self._entry_value, entries)
        pinned.update(hparams)
        for key, override in entries.items():
            if (override.is_update or key in ADDED_BY_LAUNCHERS) and key not in pinned:
                pinned[key] = None
        return pinned

    def _entry_value(self, key: str, current: Any) -> Any:
        override = self._overrides[HPARAMS + key]
        try:
            self.effective[override.name] = value = convert_like(override, current)
        except InvalidValueError as error:
            self.problems.append(Problem(OVERRIDE, 0, override.given_name, str(error)))
            return current
        return value

    def broken_overrides(self) -> list[str]:
        """Return names that the module bound anew unseen, so that an override no longer holds."""
        placed = {name: value for name, value in self._placed.items() if not self.is_unknown(name)}
        broken = [name for name, value in placed.items() if not _same(self._names.get(name), value)]
        broken += [name for name in self._names if self._is_overridden(name) and name not in (*self._placed, "hparams")]
        if self.is_unknown("hparams"):
            return broken
        hparams = self._names.get("hparams")
        for name, value in self.effective.items():
            key = name[len(HPARAMS) :]
            if name.startswith(HPARAMS) and not (isinstance(hparams, dict) and _same(hparams.get(key), value)):
                broken.append(name)
        return broken

    def _is_overridden(self, name: str) -> bool:
        override = self._overrides.get(_canonical_name(name) or "")
        failed = {problem.name for problem in self.problems}
        return override is not None and name not in self._own_names and override.given_name not in failed

    def release(self) -> None:
        """Make `hparams` an ordinary dictionary again, once the module is executed."""
        if isinstance(self._names.get("hparams"), OverriddenDict):
            self._names["hparams"] = dict(self._names["hparams"])


class OverriddenDict(dict):
    """A dictionary in which some keys keep the values that overrides give them, whatever is assigned to them."""

    def __init__(self, value_of: Any, pinned: Collection[str]) -> None:
        super().__init__()
        self._value_of = value_of
        self._pinned = pinned

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, self._value_of(key, value) if key in self._pinned else value)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set several entries, each as an assignment does."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def __ior__(self, other: Any) -> OverriddenDict:
        self.update(other)
        return self

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Set an entry that is not there yet, as an assignment does."""
        if key not in self:
            self[key] = default
        return self[key]

    def copy(self) -> dict[Any, Any]:
        """Return an ordinary dictionary with the same entries."""
        return dict(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def _of_copies(name: str, value: Any) -> Any:
    """Return a value in which data that was copied to the node's own disk is named there; runs stay where they were."""
    canonical = _canonical_name(name) or ""
    if canonical == "working_dir":
        return local_copies.to_originals(value)
    return local_copies.to_copies(value, is_path=canonical.endswith("_data_dir"))


def _canonical_name(name: str) -> str | None:
    entry = BY_ANY_NAME.get(name) or HOOKS_BY_ANY_NAME.get(name)
    return entry.name if entry else None


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    try:
        return bool(one == other)
    except Exception:  # arrays of several elements have no single truth
        return False
