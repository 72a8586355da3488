"""Loading a settings module: read, check the source, execute with overrides, check the values."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pydantic

from experiments_manager.settings.checks import complaints, fits
from experiments_manager.settings.hook import Hook, make_hook
from experiments_manager.settings.hooks import EARLIER_HOOKS, HOOKS
from experiments_manager.settings.local_modules import LocalModules
from experiments_manager.settings.namespace import Namespace, execute
from experiments_manager.settings.overrides import (
    HPARAMS,
    UnsuitableValueError,
    for_hook,
    for_setting,
    read_overrides,
    unknown_override,
)
from experiments_manager.settings.paths import find_model_file
from experiments_manager.settings.problems import OVERRIDE, Problem, SettingsError, problem_at
from experiments_manager.settings.schema import EARLIER_SETTINGS, SETTINGS, Values
from experiments_manager.settings.settings import Settings
from experiments_manager.settings.source import Source, read_source
from experiments_manager.settings.source_checks import (
    check_model_file_of,
    check_model_source,
    check_settings_source,
    uses_earlier_hooks,
)

_log = logging.getLogger(__name__)


def load_settings(
    path: str | Path,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    model_file_search: str | Path | None = None,
) -> Settings:
    """Loads a settings module and its model file.

    Args:
        path: The settings module.
        overrides: Values that take the place of those in the file, at their assignment: a mapping, or texts
            `NAME=VALUE` whose type follows from the value overridden. `hparams.KEY`, or `KEY` alone where no setting is
            called so, reaches into `hparams`.
        model_file_search: A folder that the model file is looked for in, and outside of which no module of the user's
            is read; for a run folder, its `settings/`.

    Returns:
        The loaded settings.

    Raises:
        SettingsError: With all problems that were found: those which the source shows, else those of its execution,
            else those of the values.
    """
    loader = _Loader(Path(path).absolute(), overrides, model_file_search)
    loader.check_source()
    loader.execute()
    return loader.finish()


class _Loader:
    """The steps of loading one module, and what they know of each other."""

    def __init__(
        self, file: Path, overrides: Mapping[str, Any] | Sequence[str], model_file_search: str | Path | None
    ) -> None:
        self.source = read_source(file)
        self.overrides, self.problems = read_overrides(overrides)
        self.search = Path(model_file_search).absolute() if model_file_search else None
        self.is_earlier = uses_earlier_hooks(self.source)
        self.own_names = _own_names(self.source) if self.is_earlier else frozenset()
        folders = [file.parent, self.search] if self.search else [file.parent]
        self.local_modules = LocalModules(folders, [] if self.search else [Path.cwd()])
        self.model_source: Source | None = None
        self.model_module: ModuleType | None = None

    # Step 1

    def check_source(self) -> None:
        """Raises what the source of the settings module and of its model file shows to be wrong."""
        model_file = self.overrides.get("model_file")
        given = model_file.value if model_file and isinstance(model_file.value, (str, Path)) else None
        found = check_settings_source(self.source, set(self.overrides))
        found += check_model_file_of(self.source, str(given) if given else None, self.search)
        if found:
            raise SettingsError([*self.problems, *found])

    def raise_problems(self) -> None:
        if self.problems:
            raise SettingsError(self.problems)

    # Step 2

    def execute(self) -> None:
        """Executes the settings module, then the model file that it names."""
        self.module = _new_module(self.source.file)
        self.namespace = Namespace(vars(self.module), self.overrides, self.own_names)
        self.run(self.source, self.module, self.namespace)
        if "hparams" not in vars(self.module) and any(name.startswith(HPARAMS) for name in self.overrides):
            self.namespace["hparams"] = {}
        self.check_overrides_hold()
        self.namespace.release()
        self.effective = self.namespace.effective | self.late_overrides()
        self.values = self.read_values()
        self.model_file = self.execute_model_file()

    def run(self, source: Source, module: ModuleType, namespace: Any) -> None:
        with self.local_modules.active():
            self.local_modules.register(module)
            try:
                execute(source, vars(module), namespace)
            except (Exception, SystemExit) as error:
                self.problems.append(self.failure(source, error))
                raise SettingsError(self.problems) from error

    def failure(self, source: Source, error: BaseException) -> Problem:
        """Says where and why the user's module could not be executed."""
        file, line = self.local_modules.deepest_place(error.__traceback__) or (source.file, 1)
        if isinstance(error, SyntaxError) and error.filename:
            file, line = error.filename, error.lineno or 1
        kind = type(error).__name__
        text = f"executing this raised {kind}: {error}. Expected a module that can be imported. {_remedy(error)}"
        return problem_at(file, line, kind, text)

    def check_overrides_hold(self) -> None:
        self.problems += self.namespace.problems
        for name in self.namespace.broken_overrides():
            text = (
                "the module changes this after it was assigned, so the override does not hold. Expected an assignment "
                "at the top level. Derive the changed value under another name."
            )
            line = self.source.line(name.partition(".")[0])
            self.problems.append(self.source.problem(line or 1, name, text))

    def late_overrides(self) -> dict[str, Any]:
        """What is overridden and was not assigned in the module."""
        effective, failed = {}, {problem.name for problem in self.namespace.problems}
        names = vars(self.module)
        hparams = names.get("hparams", {})
        for name, override in self.overrides.items():
            if name in self.namespace.effective or override.given_name in failed:
                continue
            try:
                if name in SETTINGS:
                    effective[name] = for_setting(override, SETTINGS[name])
                elif name in HOOKS:
                    effective[name] = for_hook(override, HOOKS[name], None)
                else:
                    self.problems.append(unknown_override(override, hparams if isinstance(hparams, dict) else ()))
            except UnsuitableValueError as error:
                self.problems.append(Problem(OVERRIDE, 0, override.given_name, str(error)))
        return effective

    def execute_model_file(self) -> Path | None:
        named = self.values.model_file
        if named is None:
            return None
        found = find_model_file(named, self.source.file, self.search)
        if isinstance(found, str):
            self.problems.append(self.problem_of("model_file", found))
            return None
        self.local_modules.add_folder(found.parent)
        try:
            self.model_source = read_source(found)
        except SettingsError as error:
            raise SettingsError([*self.problems, *error.problems]) from error
        source_problems = check_model_source(self.model_source, self.is_earlier)
        if source_problems:
            raise SettingsError([*self.problems, *source_problems])
        self.model_module = _new_module(found)
        self.run(self.model_source, self.model_module, vars(self.model_module))
        return found

    # Step 3

    def finish(self) -> Settings:
        """Checks values and hooks, and puts the settings together."""
        hooks = dict(self.read_hooks())
        faulty = {problem.name for problem in self.problems}
        given = {name: hook.value for name, hook in hooks.items()}
        for name, text in complaints(self.values, given):
            if name not in faulty:
                self.problems.append(self.problem_of(name, text))
        self.raise_problems()
        if self.values.session_name is None:
            self.values.session_name = self.source.file.stem.removeprefix("mysettings_")
        if "cid" not in self.values.model_fields_set and isinstance(self.values.hparams.get("cid"), (str, int)):
            self.values.cid = self.values.hparams["cid"]
        return Settings(
            self.source,
            self.module,
            self.values,
            hooks,
            self.effective,
            self.model_file,
            self.local_modules,
            self.is_earlier,
        )

    def read_values(self) -> Values:
        """Takes the values of all settings from the module; one of a wrong type is a problem and keeps its default."""
        given = dict(self.given_values())
        try:
            return _validated(given)
        except pydantic.ValidationError as error:
            for name in dict.fromkeys(str(item["loc"][0]) for item in error.errors()):
                value = given.pop(name)
                if self.is_earlier and self.bound_name(name) not in EARLIER_SETTINGS and _unknown_before(name):
                    _log.warning("%s is taken for the file's own, not for the setting.", self.place_of(name))
                    continue
                text = f"the value does not fit. Expected {SETTINGS[name].type_text}, got {value!r}. Correct it."
                self.problems.append(self.problem_of(name, text))
            return _validated(given)

    def given_values(self) -> Iterator[tuple[str, Any]]:
        names = vars(self.module)
        for name, entry in SETTINGS.items():
            bound = self.bound_name(name)
            if name in self.effective and not (name == "hparams" and bound in names):
                yield name, self.effective[name]
            elif bound in names and not isinstance(names[bound], ModuleType):
                value = names[bound]
                yield name, entry.earlier.to_new(value) if entry.earlier and bound == entry.earlier.name else value

    def bound_name(self, name: str) -> str:
        """The name under which the module gives a setting or hook: the earlier one, where that is bound."""
        entry = SETTINGS.get(name) or HOOKS[name]
        earlier = getattr(entry.earlier, "name", entry.earlier)
        return earlier if earlier and earlier in vars(self.module) else name

    def read_hooks(self) -> Iterator[tuple[str, Hook]]:
        for name, entry in HOOKS.items():
            from_model_file = name == "model" and self.model_module is not None
            source = self.model_source if from_model_file else self.source
            names = vars(self.model_module if from_model_file else self.module)
            bound = name if from_model_file else self.bound_name(name)
            value = self.effective.get(name, names.get(bound))
            if isinstance(value, ModuleType):
                value = None
            if value is None:
                absent = bound not in names or isinstance(names[bound], ModuleType)
                needed = entry.required or (name == "model" and self.values.model_file is None)
                if absent and needed and name not in self.effective:
                    self.problems.append(source.problem(1, name, f"it is missing. Expected {entry.expected}. Add it."))
                continue
            by_position = bound in EARLIER_HOOKS or (self.is_earlier and name == "model")
            hook, wrong = make_hook(entry, bound, value, source.file, source.line(bound), by_position)
            doubtful = self.is_earlier and bound not in EARLIER_HOOKS and name != "model"
            if doubtful and (wrong or not fits(name, value)):
                _log.warning("%s is taken for the file's own, not for the hook.", self.place_of(name))
                continue
            self.problems += [source.problem(hook.line or 1, bound, text) for text in wrong]
            yield name, hook

    def problem_of(self, name: str, text: str) -> Problem:
        if name in self.overrides:
            return Problem(OVERRIDE, 0, self.overrides[name].given_name, text)
        bound = self.bound_name(name)
        return self.source.problem(self.source.line(bound) or 1, bound, text)

    def place_of(self, name: str) -> str:
        problem = self.problem_of(name, "")
        return f"{problem.place}: {problem.name}"


def _own_names(source: Source) -> Collection[str]:
    """Names of today's that an earlier file gives besides the earlier ones, and so for itself."""
    pairs = [(earlier, entry.name) for earlier, entry in (EARLIER_SETTINGS | EARLIER_HOOKS).items()]
    return frozenset(today for earlier, today in pairs if earlier in source.names)


def _unknown_before(name: str) -> bool:
    return name not in ("hparams", "batch_size", "random_seed", "session_name", "model_file")


def _validated(given: dict[str, Any]) -> Values:
    values = Values(**given)
    if isinstance(given.get("hparams"), dict):
        values.hparams = given["hparams"]  # the module's own, which its functions read; pydantic has made a copy
    return values


def _new_module(file: Path) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader(file.stem, str(file))
    spec = importlib.util.spec_from_file_location(file.stem, file, loader=loader)
    return importlib.util.module_from_spec(spec)


def _remedy(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        if (error.name or "").partition(".")[0] == "deeplearningtools":
            return "Install that package, or copy the helpers that you use beside the settings file."
        return f"Install {error.name!r}, or put it beside the settings file."
    return "Correct the line."
