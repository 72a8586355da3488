"""Loading a sweep file: a small Python module, checked like a settings file, all problems in one list."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pydantic

from experiments_manager.common.suggestions import nearest_name, probable_typo
from experiments_manager.settings.problems import Problem, SettingsError, shown
from experiments_manager.settings.source.execution import execute, new_module
from experiments_manager.settings.source.local_modules import LocalModules
from experiments_manager.settings.source.module_source import Source, read_source
from experiments_manager.settings.source.namespace import Namespace
from experiments_manager.sweeps.errors import SweepError
from experiments_manager.sweeps.search.algorithms import Algorithm
from experiments_manager.sweeps.search.spaces import Space, SpaceError
from experiments_manager.sweeps.sweep_plan import REQUIRED, SweepPlan, options_of

_KNOWN = tuple(SweepPlan.model_fields)
_UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclasses.dataclass(frozen=True)
class SweepFile:
    """A sweep file that was loaded.

    Attributes:
        file: Absolute path.
        plan: What it says.
        space: The search space.
        settings_file: Absolute path of the settings file.
        memory_limit: In bytes.
        module: The module itself, for the hook `objective`.
    """

    file: Path
    plan: SweepPlan
    space: Space
    settings_file: Path
    memory_limit: int | None
    module: ModuleType
    source: Source
    local_modules: LocalModules

    @property
    def name(self) -> str:
        """The sweep's name: that of the file, without `mysweep_` and `.py`."""
        return self.file.stem.removeprefix("mysweep_")

    def problem(self, name: str, text: str, key: str | None = None) -> Problem:
        """Return a problem with a name of the file, or with a key of a dictionary in it."""
        return _problem(self.source, name, text, key)


def load_sweep_file(path: Path | str, *, settings_file: Path | str | None = None) -> SweepFile:
    """Load a sweep file; the settings file that it names is not looked into.

    Args:
        path: The sweep file.
        settings_file: The settings file of a copy that stands elsewhere than the sweep file did.

    Raises:
        SettingsError: With all problems that were found.
    """
    source = read_source(Path(path).expanduser().absolute())
    problems = [*source.syntax_problems, *_misspelt_names(source)]
    if source.syntax_problems:
        raise SettingsError(problems)
    module, local_modules = new_module(source), LocalModules([source.file.parent], [Path.cwd()])
    names = Namespace(vars(module), {})
    ended = execute(source, names, module, local_modules)
    problems += ended.problems
    given = {name: names[name] for name in _KNOWN if name in names and not isinstance(names[name], ModuleType)}
    problems += _missing_names(source, names)
    problems += _wrong_values(source, given)
    plan, memory_limit, space = None, None, None
    with contextlib.suppress(pydantic.ValidationError):
        plan = SweepPlan(**given)
    if settings_file is not None:
        settings_file = Path(settings_file)
    elif isinstance(given.get("settings_file"), str):
        settings_file = (source.file.parent / given["settings_file"]).resolve()
        if not settings_file.is_file():
            problems.append(_problem(source, "settings_file", _missing_file(settings_file, given["settings_file"])))
    try:
        memory_limit = _bytes(given.get("memory_limit"))
    except ValueError as error:
        problems.append(_problem(source, "memory_limit", str(error)))
    if isinstance(given.get("space"), dict):
        space, found = _space(source, given["space"], plan)
        problems += found
    if problems:
        raise SettingsError(problems) from ended.error
    return SweepFile(source.file, plan, space, settings_file, memory_limit, module, source, local_modules)


def _problem(source: Source, name: str, text: str, key: str | None = None) -> Problem:
    line = source.line(name) if key is None else source.line_of_key(name, key)
    return source.problem(line or 1, key or name, text)


def _misspelt_names(source: Source) -> Iterator[Problem]:
    for name, bindings in source.names.items():
        if name in _KNOWN or name in source.used or bindings[-1].imported or name.startswith("_"):
            continue
        meant = probable_typo(name, [known for known in _KNOWN if known not in source.names])
        if meant:
            text = f"unknown name in a sweep file, and nothing here uses it. Did you mean `{meant}`?"
            yield source.problem(source.line(name), name, text)


def _missing_names(source: Source, names: Namespace) -> Iterator[Problem]:
    for name in REQUIRED:
        if name in names or names.is_unknown(name):
            continue
        near = nearest_name(name, [word for word in source.names if word not in _KNOWN])
        hint = f"Did you mean `{name}` by `{near}` (line {source.line(near)})?" if near else "Add it."
        text = f"it is missing. Expected {SweepPlan.expected(name)}. {hint}"
        yield source.problem(1, name, text)


def _wrong_values(source: Source, given: Mapping[str, Any]) -> Iterator[Problem]:
    """Check the types of all names, and the keys of those that are dictionaries of options."""
    inner = {name: kind for name, value in given.items() if (kind := options_of(name, value)) is not None}
    for name, kind in inner.items():
        for key, text in kind.problems(given[name], f"{name}['{{}}']").items():
            yield _problem(source, name, text, str(key))
    for name, text in SweepPlan.problems(given, "it", frozenset(given) - frozenset(inner)).items():
        yield _problem(source, name, f"invalid value.{text.removeprefix('it is wrong.')}")


def _missing_file(file: Path, given: str) -> str:
    near = nearest_name(file.name, [path.name for path in file.parent.glob("*.py")]) if file.parent.is_dir() else None
    hint = f"Did you mean {str(Path(given).with_name(near))!r}?" if near else "Correct the path."
    return f"there is no such file. Expected the settings file of the experiment, seen from here, got {given!r}. {hint}"


def _bytes(value: Any) -> int | None:
    if value is None or isinstance(value, int) and not isinstance(value, bool):
        return value
    found = re.fullmatch(r"\s*([\d.]+)\s*([A-Za-z]*)\s*", value) if isinstance(value, str) else None
    if found is None or found[2].upper() not in _UNITS:
        raise ValueError(f"invalid value. Expected bytes, or a text as '4 GiB', got {shown(value)}. Correct it.")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def _space(source: Source, given: dict[str, Any], plan: SweepPlan | None) -> tuple[Space | None, list[Problem]]:
    """Read the space, and find out whether the algorithm can search it, before a trial is begun."""
    try:
        space = Space(given)
        if plan is not None:
            Algorithm(plan.algorithm, space, plan.seed)
        return space, []
    except SpaceError as error:
        return None, [_problem(source, "space", str(error), error.key)]
    except SweepError as error:
        return None, [_problem(source, "algorithm", str(error))]
