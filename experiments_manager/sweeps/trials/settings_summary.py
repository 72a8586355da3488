"""What a sweep has to know of the experiment, found out in a process of its own, since it executes the user's file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from experiments_manager.serving.server.flag_table import LIMITS
from experiments_manager.settings import Settings, load_settings
from experiments_manager.settings.hooks import HOOKS_BY_ANY_NAME
from experiments_manager.settings.monitor_mode import resolved_mode
from experiments_manager.settings.overrides import HPARAMS
from experiments_manager.settings.problems import Problem, SettingsError
from experiments_manager.settings.schema import BY_ANY_NAME, Values
from experiments_manager.sweeps.names import qualified


def describe_settings(
    settings_file: str, overrides: Mapping[str, Any], points: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> dict[str, Any]:
    """Load a settings file, and try the values of some points of the search space on it.

    Args:
        settings_file: The file.
        overrides: Settings that every trial is run with.
        points: Values by name.
        names: Settings and keys of `hparams` that the sweep varies.

    Returns:
        `problems`, each as `(file, line, name, text)`, where the file is `override` for values from outside; and, where
        there are none, `monitor`, `mode`, `epochs`, `export`, `whole` (names whose values are whole numbers) and
        `current` (the file's own values of `names`), beside what the end of a sweep needs.
    """
    try:
        settings = load_settings(settings_file)
    except SettingsError as error:
        return {"problems": [_fields(problem) for problem in error.problems]}
    overrides = qualified(overrides, settings.hparams)
    points = [qualified(point, settings.hparams) for point in points]
    whole = whole_numbers(settings, [*names, *overrides, *(name for point in points for name in point)])
    found: list[Problem] = []
    for values in [overrides, *points]:
        merged = {**overrides, **values}
        try:
            load_settings(settings_file, {name: _fitting(value, name in whole) for name, value in merged.items()})
        except SettingsError as error:
            found += error.problems
    if found:
        return {"problems": [_fields(problem) for problem in sorted(set(found))]}
    settings = load_settings(settings_file, overrides)
    return {
        "problems": [],
        "monitor": settings.monitor,
        "mode": resolved_mode(settings.monitor, settings.monitor_mode),
        "epochs": settings.epochs,
        "export": settings.export,
        "whole": sorted(whole),
        "current": _current(settings, names),
        "figures": settings.figures,
        "ports": [settings.grpc_port, settings.rest_port],
        "model_name": settings.model_name,
        "hparams": list(settings.hparams),
        "hparams_ext": settings.hparams_ext,
        "limits": {name: getattr(settings, name) for name in LIMITS},
        "cluster": settings.cluster,
        "serve_on_gpu": settings.serve_on_gpu,
        "model_file": settings.model_file and str(Path(settings.model_file).absolute()),
    }


def _current(settings: Settings, names: Sequence[str]) -> dict[str, Any]:
    """Return the values that the file itself gives to some names."""
    found = {}
    for name in names:
        key = name.removeprefix(HPARAMS)
        if key in settings.hparams:
            found[name] = settings.hparams[key]
        elif name in BY_ANY_NAME:
            found[name] = getattr(settings, BY_ANY_NAME[name].name)
        elif name in HOOKS_BY_ANY_NAME:
            found[name] = getattr(settings, name)
    return found


def whole_numbers(settings: Settings, names: Sequence[str]) -> set[str]:
    """Return those of some names whose values must be whole numbers: hyperopt gives 16.0."""
    return {name for name in names if _is_whole(settings, name)}


def _is_whole(settings: Settings, name: str) -> bool:
    if name in BY_ANY_NAME and name not in settings.hparams:
        check = pydantic.TypeAdapter(BY_ANY_NAME[name].annotation, config=Values.model_config).validate_python
        return _accepts(check, 2) and not _accepts(check, 2.5)
    value = settings.hparams.get(name.removeprefix(HPARAMS))
    return isinstance(value, int) and not isinstance(value, bool)


def _accepts(check: Any, value: Any) -> bool:
    try:
        check(value)
    except pydantic.ValidationError:
        return False
    return True


def _fitting(value: Any, whole: bool) -> Any:
    return int(value) if whole and isinstance(value, float) and value.is_integer() else value


def _fields(problem: Problem) -> tuple[str, int, str, str]:
    return problem.file, problem.line, problem.name, problem.text
