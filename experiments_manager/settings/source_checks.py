"""What is wrong with a settings module as far as its source shows, before anything is executed."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from pathlib import Path

from experiments_manager.settings.hooks import EARLIER_HOOKS, HOOKS, HOOKS_BY_ANY_NAME, HookEntry
from experiments_manager.settings.nearest import nearest_name, probable_typo
from experiments_manager.settings.paths import find_model_file
from experiments_manager.settings.problems import Problem, SettingsError
from experiments_manager.settings.removed import removed_names
from experiments_manager.settings.schema import BY_ANY_NAME, EARLIER_SETTINGS
from experiments_manager.settings.signatures import bind, is_keras_function, parameters_from_source
from experiments_manager.settings.source import Source, read_source


def uses_earlier_hooks(source: Source) -> bool:
    """Whether the file was written for the framework before this one."""
    return any(name in source.names for name in EARLIER_HOOKS)


def check_settings_source(source: Source, overridden: Collection[str] = ()) -> list[Problem]:
    """Checks the settings module alone.

    Args:
        source: The parsed file.
        overridden: Names (today's) that an override gives, so that the file need not.
    """
    return [
        *_missing_names(source, overridden),
        *_misspelt_names(source, overridden),
        *_names_given_twice(source),
        *_hook_parameters(source, uses_earlier_hooks(source)),
        *removed_names(source, uses_earlier_hooks(source)),
    ]


def check_model_source(source: Source, is_earlier: bool) -> list[Problem]:
    """Checks a model file alone."""
    problems = removed_names(source, is_earlier)
    binding = source.last("model")
    if binding is None:
        return problems if source.has_star_import else [_model_missing(source), *problems]
    return [*_parameters_of_hook(source, HOOKS["model"], "model", by_position=is_earlier), *problems]


def _model_missing(source: Source) -> Problem:
    near = nearest_name("model", [name for name in source.names if not source.names[name][-1].imported])
    hint = f"Did you mean `{near}` for it (line {source.line(near)})?" if near else "Define it."
    text = f"the model file does not define it. Expected a function that returns a Keras model. {hint}"
    return source.problem(1, "model", text)


def check_source(path: str | Path) -> list[Problem]:
    """Reports what the source of a settings module, and of its model file, shows to be wrong. Executes nothing.

    Args:
        path: The settings module.

    Returns:
        The problems, in the order of files and lines; none where the source looks right.
    """
    file = Path(path).absolute()
    try:
        source = read_source(file)
    except SettingsError as error:
        return error.problems
    return sorted({*check_settings_source(source), *check_model_file_of(source)})


def check_model_file_of(source: Source, given: str | None = None, search: Path | None = None) -> list[Problem]:
    """Checks the model file that a settings module names, as far as the source names one.

    Args:
        source: The settings module.
        given: A model file that an override names.
        search: Folder in which it is looked for first.
    """
    named = given or _literal(source, "model_file")
    if not isinstance(named, str):
        return []
    line = 0 if given else source.line("model_file")
    found = find_model_file(named, source.file, search)
    if isinstance(found, str):
        return [source.problem(line, "model_file", found)]
    try:
        return check_model_source(read_source(found), uses_earlier_hooks(source))
    except SettingsError as error:
        return error.problems


def _literal(source: Source, name: str) -> object:
    binding = source.last(name)
    if binding is None or len(source.names[name]) > 1:
        return None
    return binding.node.value if isinstance(binding.node, ast.Constant) else None


def given_hook(source: Source, hook: HookEntry) -> str | None:
    """The name under which a file gives a hook: the earlier one where both are there."""
    return next((name for name in (hook.earlier, hook.name) if name in source.names), None)


def _missing_names(source: Source, overridden: Collection[str]) -> Iterator[Problem]:
    if source.has_star_import:
        return
    for hook in HOOKS.values():
        if hook.required and hook.name not in overridden and given_hook(source, hook) is None:
            yield source.problem(1, hook.name, f"it is missing. Expected {hook.expected}. {_hint(source, hook.name)}")
    in_file, in_module = "model_file" in source.names or "model_file" in overridden, "model" in source.names
    if not in_file and not in_module:
        text = (
            "it is missing. Expected a function `model` here, or `model_file` naming a file that defines it. "
            f"{_hint(source, 'model', 'model_file')}"
        )
        yield source.problem(1, "model", text)
    if "model_file" in source.names and in_module and not uses_earlier_hooks(source):
        text = f"there is a `model` here (line {source.line('model')}), too. Expected one of the two. Remove the other."
        yield source.problem(source.line("model_file"), "model_file", text)


def _hint(source: Source, *names: str) -> str:
    given = [name for name in source.names if name not in BY_ANY_NAME and name not in HOOKS_BY_ANY_NAME]
    wanted = [*names, *(HOOKS[name].earlier for name in names if name in HOOKS and HOOKS[name].earlier)]
    for name in wanted:
        near = nearest_name(name, given)
        if near:
            return f"Did you mean `{name}` by `{near}` (line {source.line(near)})?"
    return "Add it."


def _misspelt_names(source: Source, overridden: Collection[str]) -> Iterator[Problem]:
    given = {*overridden, *_todays_names(source)}
    if not source.has_star_import:
        given |= {hook.name for hook in HOOKS.values() if hook.required}  # what is missing is reported as that
        given |= set() if "model" in given else {"model", "model_file"}
    for name, bindings in source.names.items():
        if name in BY_ANY_NAME or name in HOOKS_BY_ANY_NAME or name in source.used or bindings[-1].imported:
            continue
        meant = probable_typo(name, [*BY_ANY_NAME, *HOOKS_BY_ANY_NAME])
        if meant and _today(meant) not in given and not name.startswith("_"):
            text = f"there is no setting or hook of this name, and nothing here uses it. Did you mean `{meant}`?"
            yield source.problem(bindings[-1].line, name, text)


def _todays_names(source: Source) -> set[str]:
    given = {_today(name) for name in source.names}
    return given | ({"model"} if "model_file" in given else set())


def _today(name: str) -> str:
    entry = BY_ANY_NAME.get(name) or HOOKS_BY_ANY_NAME.get(name)
    return entry.name if entry else name


def _names_given_twice(source: Source) -> Iterator[Problem]:
    if uses_earlier_hooks(source):
        return  # in such a file a name of today's may be one of its own, so the earlier one counts
    for earlier, entry in EARLIER_SETTINGS.items():
        if earlier in source.names and entry.name in source.names:
            line = source.line(entry.name)
            text = f"this is the earlier name of `{entry.name}`, given in line {line}. Expected one. Remove the other."
            yield source.problem(source.line(earlier), earlier, text)


def _hook_parameters(source: Source, is_earlier: bool) -> Iterator[Problem]:
    for hook in HOOKS.values():
        name = given_hook(source, hook)
        if name is not None:
            by_position = name in EARLIER_HOOKS or (is_earlier and hook.name == "model")
            yield from _parameters_of_hook(source, hook, name, by_position)


def _parameters_of_hook(source: Source, hook: HookEntry, name: str, by_position: bool) -> Iterator[Problem]:
    node = source.names[name][-1].node
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
        return
    if getattr(node, "decorator_list", []) or (isinstance(node, ast.ClassDef) and (hook.value or node.bases)):
        return  # only the finished object tells what it takes
    asked = parameters_from_source(node)
    if not by_position and is_keras_function(hook, asked):
        return
    _, complaints = bind(hook, asked, by_position)
    yield from (source.problem(node.lineno, name, complaint) for complaint in complaints)
