"""What is wrong with a settings module as far as its source shows, before anything is executed."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Collection, Iterator

from experiments_manager.common.suggestions import nearest_name, probable_typo
from experiments_manager.dialects import Dialect, dialect_of, plugins
from experiments_manager.settings.hooks import HOOKS, HOOKS_BY_ANY_NAME, HookSpec
from experiments_manager.settings.problems import Problem
from experiments_manager.settings.schema import BY_ANY_NAME, BY_OTHER_NAME
from experiments_manager.settings.source.hook_parameters import bind, is_keras_function, parameters_from_source
from experiments_manager.settings.source.module_source import Source


def dialect_of_source(source: Source) -> Dialect:
    """Return the form of a settings file."""
    return dialect_of(lambda name: name in source.names or name in source.readable.lost_names)


def removed_names(source: Source, dialect: Dialect | None = None) -> list[Problem]:
    """Return a problem for each name in a source that is gone, with what to write instead.

    Args:
        source: A settings or model file.
        dialect: The form of the settings file; such a plug-in offers what has only been renamed.
    """
    return [problem for plugin in plugins() for problem in plugin.removed_names(source, plugin is dialect)]


def suspect_names(source: Source, overridden: Collection[str] = ()) -> frozenset[str]:
    """Return names that are invalid for a reason that the source shows: missing, misspelt, or unreadable.

    An error that comes of such a name is not worth a message of its own.
    """
    missing = [problem.name for problem in _missing_names(source, overridden)]
    return source.readable.lost_words.union(missing, probable_typos(source, overridden).values())


def probable_typos(source: Source, overridden: Collection[str] = ()) -> dict[str, str]:
    """Misspelt names, and the setting or hook that each is probably meant for."""
    missing = [problem.name for problem in _missing_names(source, overridden)]
    near = [(_near(source, name), name) for name in missing if name != "model"]
    return dict(_typos(source, overridden)) | {given: name for given, name in near if given}


def check_settings_source(source: Source, overridden: Collection[str] = ()) -> list[Problem]:
    """Check the settings module alone.

    Args:
        source: The parsed file.
        overridden: Canonical names that an override gives, so that the file need not.
    """
    return [
        *source.syntax_problems,
        *_missing_names(source, overridden),
        *_misspelt_names(source, overridden),
        *_names_given_twice(source),
        *_hook_parameters(source, dialect_of_source(source)),
        *removed_names(source, dialect_of_source(source)),
    ]


def check_model_source(source: Source, dialect: Dialect) -> list[Problem]:
    """Check a model file alone."""
    problems = [*source.syntax_problems, *removed_names(source, dialect)]
    binding = source.last("model")
    if binding is None:
        return problems if source.may_bind("model") else [model_missing(source), *problems]
    return [
        *_parameters_of_hook(source, HOOKS["model"], "model", dialect.binds_by_position("model", "model")),
        *problems,
    ]


def model_missing(source: Source) -> Problem:
    """Say that a model file does not define its function."""
    near = nearest_name("model", [name for name in source.names if not source.names[name][-1].imported])
    hint = f"Did you mean `{near}` for it (line {source.line(near)})?" if near else "Define it."
    text = f"the model file does not define it. Expected a function that returns a Keras model. {hint}"
    return source.problem(1, "model", text)


def given_hook(source: Source, hook: HookSpec) -> str | None:
    """Return the name under which a file gives a hook: the other one where both are there."""
    return next((name for name in (hook.other_name, hook.name) if name in source.names), None)


def _missing_names(source: Source, overridden: Collection[str]) -> Iterator[Problem]:
    for hook in HOOKS.values():
        given = hook.name in overridden or given_hook(source, hook) or source.may_bind(hook.name, hook.other_name)
        if hook.required and not given:
            near, text = _near(source, hook.name), f"it is missing. Expected {hook.expected}. "
            found = source.problem(1, hook.name, text + _hint(source, hook.name))
            yield dataclasses.replace(found, meant=(near, hook.name)) if near else found
    in_file, in_module = "model_file" in source.names or "model_file" in overridden, "model" in source.names
    if not in_file and not in_module and not source.may_bind("model", "model_file"):
        text = (
            "it is missing. Expected a function `model` here, or `model_file` naming a file that defines it. "
            f"{_hint(source, 'model', 'model_file')}"
        )
        yield source.problem(1, "model", text)
    if "model_file" in source.names and in_module and dialect_of_source(source).is_strict:
        text = f"there is a `model` here (line {source.line('model')}), too. Expected one of the two. Remove the other."
        yield source.problem(source.line("model_file"), "model_file", text)


def _hint(source: Source, *names: str) -> str:
    for name in names:
        near = _near(source, name)
        if near:
            return f"Did you mean `{name}` by `{near}` (line {source.line(near)})?"
    return "Add it."


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def _near(source: Source, name: str) -> str | None:
    """Return the name in a file that is probably meant for that of a setting or hook which is missing."""
    given = [word for word in source.names if word not in BY_ANY_NAME and word not in HOOKS_BY_ANY_NAME]
    other = HOOKS[name].other_name if name in HOOKS else None
    near = nearest_name(name, given) or (nearest_name(other, given) if other else None)
    parts = [word for word in given if name in word.split("_") and isinstance(source.names[word][-1].node, _FUNCTIONS)]
    return near or (parts[0] if len(parts) == 1 else None)


def _misspelt_names(source: Source, overridden: Collection[str]) -> Iterator[Problem]:
    for name, meant in _typos(source, overridden):
        text = f"unknown setting or hook, and nothing here uses it. Did you mean `{meant}`?"
        yield dataclasses.replace(source.problem(source.line(name), name, text), meant=(name, meant))


def _typos(source: Source, overridden: Collection[str]) -> Iterator[tuple[str, str]]:
    """Return unused names that resemble those of settings or hooks which are not given, with these."""
    given = {*overridden, *_canonical_names(source)}
    if not source.has_star_import:
        given |= {hook.name for hook in HOOKS.values() if hook.required}  # what is missing is reported as that
        given |= set() if "model" in given else {"model", "model_file"}
    for name, bindings in source.names.items():
        if name in BY_ANY_NAME or name in HOOKS_BY_ANY_NAME or name in source.used or bindings[-1].imported:
            continue
        meant = probable_typo(name, [*BY_ANY_NAME, *HOOKS_BY_ANY_NAME])
        if meant and _canonical(meant) not in given and not name.startswith("_"):
            yield name, meant


def _canonical_names(source: Source) -> set[str]:
    given = {_canonical(name) for name in source.names}
    return given | ({"model"} if "model_file" in given else set())


def _canonical(name: str) -> str:
    entry = BY_ANY_NAME.get(name) or HOOKS_BY_ANY_NAME.get(name)
    return entry.name if entry else name


def _names_given_twice(source: Source) -> Iterator[Problem]:
    if not dialect_of_source(source).is_strict:
        return  # in such a file a canonical name may be one of its own, so the other one counts
    for other, entry in BY_OTHER_NAME.items():
        if other in source.names and entry.name in source.names:
            line = source.line(entry.name)
            text = f"this is another name of `{entry.name}`, given in line {line}. Expected one. Remove the other."
            yield source.problem(source.line(other), other, text)


def _hook_parameters(source: Source, dialect: Dialect) -> Iterator[Problem]:
    for hook in HOOKS.values():
        name = given_hook(source, hook)
        if name is not None:
            yield from _parameters_of_hook(source, hook, name, dialect.binds_by_position(hook.name, name))


def _parameters_of_hook(source: Source, hook: HookSpec, name: str, by_position: bool) -> Iterator[Problem]:
    node = source.names[name][-1].node
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
        return
    if getattr(node, "decorator_list", []) or (isinstance(node, ast.ClassDef) and (hook.value or node.bases)):
        return  # only the finished object tells what it takes
    asked = parameters_from_source(node)
    if not by_position and is_keras_function(hook, asked):
        return
    _, violations = bind(hook, asked, by_position)
    for parameter, text, meant in violations:
        found = source.problem(node.lineno, name, text)
        yield dataclasses.replace(found, meant=(parameter, meant)) if meant else found
