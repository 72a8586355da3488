"""Loading a settings module: check the source, execute it with overrides, read and check what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments_manager.settings.checks import complaints
from experiments_manager.settings.execution import execute, new_module
from experiments_manager.settings.hook import Hook, make_hook
from experiments_manager.settings.hooks import EARLIER_HOOKS, HOOKS
from experiments_manager.settings.legacy.renamed import with_renamed
from experiments_manager.settings.local_modules import LocalModules
from experiments_manager.settings.namespace import Namespace
from experiments_manager.settings.overrides import HPARAMS, Override, late_overrides, read_overrides
from experiments_manager.settings.paths import find_model_file
from experiments_manager.settings.problems import Problem, SettingsError
from experiments_manager.settings.reading import Reader
from experiments_manager.settings.schema import EARLIER_SETTINGS, Values
from experiments_manager.settings.settings import Settings
from experiments_manager.settings.source import Source, read_source
from experiments_manager.settings.source_checks import (
    check_model_file_of,
    check_model_source,
    check_settings_source,
    uses_earlier_hooks,
)


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
    source = read_source(Path(path).absolute())
    search = Path(model_file_search).absolute() if model_file_search else None
    table, problems = read_overrides(overrides)
    found = _check_source(source, table, search)
    if found:
        raise SettingsError([*problems, *found])
    try:
        return _load(source, table, search, problems)
    except SettingsError as error:
        raise SettingsError([*problems, *error.problems]) from error.__cause__


def _check_source(source: Source, overrides: Mapping[str, Override], search: Path | None) -> list[Problem]:
    model_file = overrides["model_file"].value if "model_file" in overrides else None
    named = str(model_file) if isinstance(model_file, (str, Path)) else None
    return [*check_settings_source(source, set(overrides)), *check_model_file_of(source, named, search)]


def _load(source: Source, overrides: dict[str, Override], search: Path | None, problems: list[Problem]) -> Settings:
    """Executes and reads a module whose source is right; adds to the problems what it finds on the way."""
    folders = [source.file.parent, search] if search else [source.file.parent]
    local_modules = LocalModules(folders, [] if search else [Path.cwd()])
    is_earlier = uses_earlier_hooks(source)
    module = new_module(source)
    effective = _execute(source, module, local_modules, overrides, problems)

    reader = Reader(source, module, overrides, effective, is_earlier)
    values = reader.values()
    hooks = reader.hooks(needs_model=values.model_file is None)
    problems += reader.problems
    model_file = None
    if values.model_file is not None:
        model_file = _find_model_file(values.model_file, source, search, reader)
        hooks["model"] = _load_model(model_file, local_modules, is_earlier)

    faulty = {problem.name for problem in problems}
    wrong = complaints(values, {name: hook.value for name, hook in hooks.items()})
    problems += [reader.problem(name, text) for name, text in wrong if name not in faulty]
    if problems:
        raise SettingsError(problems)
    _fill_in(values, source)
    return Settings(source, module, values, hooks, effective, model_file, local_modules, is_earlier)


def _execute(
    source: Source,
    module: ModuleType,
    local_modules: LocalModules,
    overrides: dict[str, Override],
    problems: list[Problem],
) -> dict[str, Any]:
    """Executes the settings module and tells what the overrides came to."""
    namespace = Namespace(vars(module), overrides, _own_names(source))
    execute(with_renamed(source) if uses_earlier_hooks(source) else source, module, local_modules, namespace)
    if "hparams" not in namespace and any(name.startswith(HPARAMS) for name in overrides):
        namespace["hparams"] = {}
    for name in namespace.broken_overrides():
        text = (
            "the module changes this after it was assigned, so the override does not hold. Expected an assignment at "
            "the top level. Derive the changed value under another name."
        )
        problems.append(source.problem(source.line(name.partition(".")[0]) or 1, name, text))
    problems += namespace.problems
    namespace.release()
    failed = {problem.name for problem in namespace.problems}
    late = {
        name: override
        for name, override in overrides.items()
        if name not in namespace.effective and override.given_name not in failed
    }
    hparams = vars(module).get("hparams", {})
    effective, found = late_overrides(late, hparams if isinstance(hparams, dict) else {})
    problems += found
    return namespace.effective | effective


def _own_names(source: Source) -> frozenset[str]:
    """Names of today's that an earlier file gives besides the earlier ones, and so for itself."""
    if not uses_earlier_hooks(source):
        return frozenset()
    pairs = (EARLIER_SETTINGS | EARLIER_HOOKS).items()
    return frozenset(entry.name for earlier, entry in pairs if earlier in source.names)


def _find_model_file(named: str, source: Source, search: Path | None, reader: Reader) -> Path:
    found = find_model_file(named, source.file, search)
    if isinstance(found, str):
        raise SettingsError([reader.problem("model_file", found)])
    return found


def _load_model(file: Path, local_modules: LocalModules, is_earlier: bool) -> Hook:
    """Executes the model file and gives the function `model` that it defines."""
    source = read_source(file)
    problems = check_model_source(source, is_earlier)
    if problems:
        raise SettingsError(problems)
    local_modules.add_folder(file.parent)
    module = new_module(source)
    execute(with_renamed(source) if is_earlier else source, module, local_modules)
    model = vars(module).get("model")
    hook, wrong = make_hook(HOOKS["model"], "model", model, file, source.line("model"), by_position=is_earlier)
    if wrong:
        raise SettingsError([source.problem(hook.line or 1, "model", text) for text in wrong])
    return hook


def _fill_in(values: Values, source: Source) -> None:
    """Gives the values that follow from others where the module does not give them."""
    if values.session_name is None:
        values.session_name = source.file.stem.removeprefix("mysettings_")
    cid = values.hparams.get("cid")
    if "cid" not in values.model_fields_set and isinstance(cid, (str, int)):
        values.cid = cid
