"""Loading a settings module: what its source shows, then executing it with overrides; all problems in one list."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments_manager.settings.bound_hook import make_hook
from experiments_manager.settings.hooks import HOOKS, HOOKS_BY_OTHER_NAME
from experiments_manager.settings.lint.finders import AFTER_EXECUTION, LEFT_TO_EXECUTION, find_problems
from experiments_manager.settings.lint.inspected import Inspected
from experiments_manager.settings.overrides import HPARAMS, Override, add_updates, read_overrides
from experiments_manager.settings.problems import Problem, SettingsError
from experiments_manager.settings.schema import BY_OTHER_NAME, Values
from experiments_manager.settings.settings import Settings
from experiments_manager.settings.source.execution import Execution, execute, new_module
from experiments_manager.settings.source.heavy_imports import without_heavy_imports
from experiments_manager.settings.source.local_modules import LocalModules
from experiments_manager.settings.source.model_file import find_model_file
from experiments_manager.settings.source.module_source import Source, read_source
from experiments_manager.settings.source.namespace import Namespace
from experiments_manager.settings.source.repairs import repaired
from experiments_manager.settings.source.source_checks import (
    check_model_source,
    check_settings_source,
    dialect_of_source,
    model_missing,
    probable_typos,
    suspect_names,
)
from experiments_manager.settings.source.static_values import Interpreter
from experiments_manager.settings.validation import Validation, problems_of_overrides, validate, with_values

_log = logging.getLogger(__name__)


def load_settings(
    path: str | Path,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    hparams: Mapping[str, Any] | None = None,
    model_file_search: str | Path | None = None,
    start_dir: str | Path | None = None,
) -> Settings:
    """Load a settings module and its model file.

    Where the source shows something to be wrong, the module is executed all the same, to find out what else is; but
    without importing TensorFlow or Keras, so what depends on these is not looked at then.

    Args:
        path: The settings module.
        overrides: Values that take the place of those in the file, at their assignment: a mapping, or texts
            `NAME=VALUE` whose type follows from the value overridden. `hparams.KEY`, or `KEY` alone where no setting is
            called so, reaches into `hparams`.
        hparams: Entries that update the module's `hparams` where it assigns them: unlike overrides they may have new
            keys and other types than the entries that they replace. Where an override has the same name, it counts.
        model_file_search: A folder that the model file is looked for in, and outside of which no module of the user's
            is read; for a run folder, its `settings/`. Its code was looked through when the run began.
        start_dir: The folder that the module's relative paths start from; the working directory by default. Who loads
            a module again while its hooks run, in another folder, gives `Settings.start_dir`.

    Returns:
        The loaded settings.

    Raises:
        SettingsError: With all problems that were found, in the source, in the values, in the overrides, in the model
            file, and by executing them; each once.
    """
    table, problems = read_overrides(overrides)
    add_updates(table, hparams or {})
    try:
        source = read_source(Path(path).absolute())
    except SettingsError as error:
        raise SettingsError([*problems, *error.problems, *problems_of_overrides(table)]) from None
    loading = _Loading(source, table, Path(model_file_search).absolute() if model_file_search else None, start_dir)
    problems += loading.read(lint=model_file_search is None)
    if source.syntax_problems:
        raise SettingsError(problems)
    wrong = any(not problem.is_warning for problem in (*problems, *loading.left_to_execution))
    with without_heavy_imports() if wrong else contextlib.nullcontext():
        problems = [*problems, *loading.execute()]
    if any(not problem.is_warning for problem in problems):
        raise SettingsError(problems) from loading.error
    return loading.settings([problem for problem in problems if problem.is_warning])


def load_despite_problems(
    path: str | Path, overrides: Mapping[str, Any] | Sequence[str] = ()
) -> tuple[Settings | None, list[Problem]]:
    """Load a settings module as far as it goes, for a dry run, which looks at all that is left.

    Args:
        path: The settings module.
        overrides: As for `load_settings`.

    Returns:
        The settings, with defaults in the place of values that are wrong and without hooks that are; `None` where the
        source cannot be read at all. And all problems, in the order of files and lines.
    """
    table, problems = read_overrides(overrides)
    try:
        source = read_source(Path(path).absolute())
    except SettingsError as error:
        return None, sorted({*problems, *error.problems, *problems_of_overrides(table)})
    loading = _Loading(source, table, None, None)
    problems += loading.read()
    if source.syntax_problems:
        return None, sorted(set(problems))
    problems += loading.repair()
    problems += loading.execute()
    wrong = sorted({problem for problem in problems if not problem.is_warning})
    warnings = [problem for problem in problems if problem.is_warning]
    return loading.settings(warnings, without={problem.name for problem in wrong if problem.meant is None}), wrong


def check_source(path: str | Path) -> list[Problem]:
    """Report what the source of a settings module, and of its model file, shows to be wrong. Execute nothing.

    Args:
        path: The settings module.

    Returns:
        The problems, in the order of files and lines; none where the source looks right.
    """
    try:
        return sorted(set(_Loading(read_source(Path(path).absolute()), {}, None).read(lint=False)))
    except SettingsError as error:
        return error.problems


def lint_source(path: str | Path) -> list[Problem]:
    """Do as `check_source`, and look for mistakes in all of the source, as `load_settings` does; execute nothing."""
    loading = _Loading(read_source(Path(path).absolute()), {}, None)
    return sorted({*loading.read(), *loading.left_to_execution})


@dataclasses.dataclass(frozen=True)
class SourceValues:
    """What the source of a settings module shows, without executing it.

    Attributes:
        values: All settings; what only an execution would tell is at its default.
        model_file: The model file, where one is named.
        overrides: What the overrides came to, by canonical name, as far as that can be told.
    """

    values: Values
    model_file: Path | None
    overrides: dict[str, Any]


def read_values(path: str | Path, overrides: Sequence[str] = ()) -> SourceValues:
    """Read what the source of a settings module shows. Execute nothing.

    Args:
        path: The settings module.
        overrides: Texts `NAME=VALUE`, as for `load_settings`.

    Raises:
        SettingsError: With all problems that the source shows.
    """
    table, problems = read_overrides(overrides)
    loading = _Loading(read_source(Path(path).absolute()), table, None)
    problems += [problem for problem in loading.read(lint=False) if not problem.is_warning]
    if problems:
        raise SettingsError(problems)
    return loading.source_values()


class _Loading:
    """One settings module on its way in: first read, then executed.

    Attributes:
        error: The first exception that executing it raised.
        left_to_execution: What the source shows to be wrong where executing it may say so better.
    """

    def __init__(
        self,
        source: Source,
        overrides: dict[str, Override],
        search: Path | None,
        start_dir: str | Path | None = None,
    ) -> None:
        self.error: BaseException | None = None
        self._source = source
        self._overrides = overrides
        self._search = search
        self._start_dir = Path(start_dir or Path.cwd()).absolute()
        self._dialect = dialect_of_source(source)
        self._in_question = suspect_names(source, overrides)
        self._meant = probable_typos(source, overrides)
        self._wrong: frozenset[str] = frozenset()
        self._module: ModuleType
        self._validation: Validation
        self._local_modules: LocalModules
        self._model_file: Path | None = None
        self.left_to_execution: list[Problem] = []
        self._inspected: list[Inspected] = []
        self._shown: list[Problem] = []
        self._repairs: list[Problem] = []

    def read(self, lint: bool = True) -> list[Problem]:
        """Return what the sources of module and model file show to be wrong.

        Args:
            lint: Whether to look through all of it, and not only for what settings and hooks come to.
        """
        namespace = self._namespace({})
        namespace.withhold(self._source.readable.lost_names)
        Interpreter(self._source, namespace).follow(self._source.tree.body)
        validation = self._validation = validate(self._source, namespace, self._overrides, self._dialect)
        self._wrong = validation.wrong
        model_source, found = self._model_source(validation)
        self._model_file = model_source.file if model_source is not None else None
        shown = with_values(check_settings_source(self._source, set(self._overrides)), namespace, self._meant)
        self._shown = [*shown, *validation.problems, *found]
        self._inspected = self._files(namespace, model_source) if lint else []
        self._shown += _without_repeats(self._shown, find_problems(self._inspected))
        self.left_to_execution = find_problems(self._inspected, LEFT_TO_EXECUTION)
        return self._shown

    def _files(self, namespace: Namespace, model_source: Source | None) -> list[Inspected]:
        """Return the files that are looked through, with what is known of their names."""
        folders = [self._source.file.parent, *([self._search] if self._search else [self._start_dir])]
        companion = model_source.text if model_source is not None else ""
        names, unknown = dict(namespace), frozenset(namespace.unknown | self._in_question)
        may_come = self._source.may_bind("hparams") or any(name.startswith(HPARAMS) for name in self._overrides)
        if "hparams" not in self._source.names and not may_come and not namespace.is_unknown("hparams"):
            names["hparams"] = {}
        files = [Inspected(self._source, names, self._dialect, False, tuple(folders), companion, unknown)]
        if model_source is not None:
            folders.append(model_source.file.parent)
            hparams = {name: names[name] for name in ("hparams",) if name in names}
            files.append(Inspected(model_source, hparams, self._dialect, True, tuple(folders)))
        return files

    def source_values(self) -> SourceValues:
        """Return what `read` has found."""
        _fill_in(self._validation.values, self._source)
        return SourceValues(self._validation.values, self._model_file, self._validation.effective)

    def repair(self) -> list[Problem]:
        """Have what is misspelt executed as it is probably meant; return what is wrong with what is now a hook."""
        self._repairs = [*self._shown, *self.left_to_execution]
        self._source = repaired(self._source, self._repairs)
        of_hooks = _without_repeats(self._shown, check_settings_source(self._source, set(self._overrides)))
        of_hooks = [problem for problem in of_hooks if problem.meant]
        self._source = repaired(self._source, of_hooks)
        self._in_question = suspect_names(self._source, self._overrides)
        return of_hooks

    def execute(self) -> list[Problem]:
        """Execute module and model file; return what that shows to be wrong."""
        folders = [self._source.file.parent, *([self._search] if self._search else [])]
        further = [] if self._search else [self._start_dir]
        finder = self._dialect.module_finder([*folders, *further])
        self._local_modules = LocalModules(folders, further, finder)
        self._module = new_module(self._source)
        namespace = self._namespace(vars(self._module))
        namespace.withhold(self._wrong)  # so that no error follows from a value that is reported already
        reported = {problem.place for problem in self._shown if not problem.is_warning}
        ended = execute(self._executed(self._source), namespace, self._module, self._local_modules, reported=reported)
        self._validation = validate(self._source, namespace, self._overrides, self._dialect)
        model_source, found = self._model_source(self._validation)
        if model_source is not None:
            self._model_file = model_source.file
            found += self._execute_model(model_source, namespace, ended)
        self.error = ended.error
        with self._local_modules.active():
            of_modules = find_problems(self._inspected, AFTER_EXECUTION)
        told = {problem.place for problem in ended.problems}
        found += [problem for problem in (*self.left_to_execution, *of_modules) if problem.place not in told]
        return _without_repeats(self._shown, [*ended.problems, *self._validation.problems, *found])

    def settings(self, warnings: list[Problem], without: Collection[str] = ()) -> Settings:
        """Return what was loaded.

        Args:
            warnings: What was found with which the file can be used all the same.
            without: Names, as the file gives them, of hooks that are wrong.
        """
        warned = [*self._validation.remarks, *map(str, sorted(set(warnings)))]
        for remark in warned:
            _log.warning("%s", remark)
        values, hooks = self._validation.values, self._validation.hooks
        hooks = {name: hook for name, hook in hooks.items() if hook.given_name not in without}
        _fill_in(values, self._source)
        return (self._dialect.settings_class() or Settings)(
            self._source,
            self._module,
            values,
            hooks,
            self._validation.effective,
            self._model_file,
            self._local_modules,
            self._dialect,
            self._start_dir,
            warned,
        )

    def _namespace(self, names: dict[str, Any]) -> Namespace:
        namespace = Namespace(names, self._overrides, _own_names(self._source))
        namespace.unknown |= self._in_question
        namespace.all_unknown = self._source.readable.nothing
        return namespace

    def _model_source(self, validation: Validation) -> tuple[Source | None, list[Problem]]:
        """Return the source of the model file, where one is named that can be read, and what is wrong with it."""
        if validation.values.model_file is None:
            return None, []
        found = find_model_file(validation.values.model_file, self._source.file, self._start_dir, self._search)
        if isinstance(found, str):
            return None, [validation.problem("model_file", found)]
        try:
            source = read_source(found)
        except SettingsError as error:
            return None, error.problems
        return source, check_model_source(source, self._dialect)

    def _execute_model(self, source: Source, settings_names: Namespace, ended: Execution) -> list[Problem]:
        """Execute the model file and take the function `model` that it defines; add to how the execution ended."""
        if source.syntax_problems:
            return []
        self._local_modules.add_folder(source.file.parent)
        module = new_module(source)
        names = Namespace(vars(module), {})
        unknown = {self._module.__name__: settings_names.unknown}
        reported = {problem.place for problem in self._shown if not problem.is_warning}
        run = execute(
            self._executed(source),
            names,
            module,
            self._local_modules,
            unknown_elsewhere=unknown,
            reported=reported,
        )
        ended.problems += run.problems
        ended.error = ended.error or run.error
        if names.is_unknown("model"):
            return []
        if "model" not in names:
            return [model_missing(source)]
        line = source.line("model")
        by_position = self._dialect.binds_by_position("model", "model")
        hook, wrong = make_hook(HOOKS["model"], "model", names["model"], source.file, line, by_position)
        self._validation.hooks["model"] = hook
        return [source.problem(hook.line or 1, "model", text) for text in wrong]

    def _executed(self, source: Source) -> Source:
        """Return what is executed of a source: as it is meant, and as its form of settings files wants it."""
        source = repaired(source, self._repairs) if self._repairs and source is not self._source else source
        return self._dialect.rewritten(source)


def _without_repeats(first: list[Problem], others: list[Problem]) -> list[Problem]:
    """Return those of the others that are not about a name and a place of one of the first."""
    told = {(problem.place, problem.name) for problem in first}
    return [problem for problem in others if (problem.place, problem.name) not in told]


def _own_names(source: Source) -> frozenset[str]:
    """Return canonical names that a file gives besides their other ones, and so for itself."""
    if dialect_of_source(source).is_strict:
        return frozenset()
    pairs = (BY_OTHER_NAME | HOOKS_BY_OTHER_NAME).items()
    return frozenset(entry.name for other, entry in pairs if other in source.names)


def _fill_in(values: Values, source: Source) -> None:
    """Return the values that follow from others where the module does not give them."""
    if values.session_name is None:
        values.session_name = source.file.stem.removeprefix("mysettings_")
    cid = values.hparams.get("cid")
    if "cid" not in values.model_fields_set and isinstance(cid, (str, int)):
        values.cid = cid
