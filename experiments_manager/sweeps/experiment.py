"""What a sweep knows of its experiment, and whether sweep file and settings file fit together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from experiments_manager.settings.monitor_mode import resolved_mode
from experiments_manager.settings.overrides import HPARAMS
from experiments_manager.settings.problems import OVERRIDE, Problem, SettingsError, shown
from experiments_manager.sweeps.errors import SweepError
from experiments_manager.sweeps.search.history import proposal_seed
from experiments_manager.sweeps.search.spaces import Point
from experiments_manager.sweeps.sweep_file import SweepFile
from experiments_manager.sweeps.trials.fork_server import ForkServer

_SAMPLES = 3
"""Points at random that are tried on the settings file before the sweep begins."""

_HINTS = {
    "Expected int": " Whole numbers come from `hp.quniform(LABEL, LOW, HIGH, 1)`, one of a list from `hp.choice`.",
    "got [": " One of a list comes from `hp.choice(LABEL, LIST)`.",
}
"""What may be meant in a space by a value that a setting does not take."""


@dataclasses.dataclass(frozen=True)
class SweptExperiment:
    """The experiment of a sweep.

    Attributes:
        file: The sweep file.
        columns: The objectives, by their names in `metrics.csv`; the watched value where a function is the objective.
        names: What the objectives are called.
        modes: `min` or `max` for each.
        epochs: Of a whole trial.
        whole: Names whose values are whole numbers.
        points: What the user wants to be tried first.
        settings: What `describe_settings` tells.
    """

    file: SweepFile
    columns: tuple[str, ...]
    names: tuple[str, ...]
    modes: tuple[str, ...]
    epochs: int
    whole: frozenset[str]
    points: tuple[Point, ...]
    settings: Mapping[str, Any]


def look_at_experiment(file: SweepFile, server: ForkServer) -> SweptExperiment:
    """Load the settings file in a process of its own, and check that all names and values of the sweep file fit.

    Raises:
        SettingsError: With all problems that were found.
        SweepError: The process ended.
    """
    told = _described(file, server)
    problems = [_placed(file, Problem(*fields)) for fields in told["problems"]]
    if problems:
        by_name = {(problem.file, problem.line, problem.name): problem for problem in problems}  # of several points
        raise SettingsError(list(by_name.values()))
    names, modes = _objectives(file, told)
    points, problems = _points(file, told["current"])
    if problems:
        raise SettingsError(problems)
    return SweptExperiment(
        file=file,
        columns=(told["monitor"],) if callable(file.plan.objective) else names,
        names=names,
        modes=modes,
        epochs=told["epochs"],
        whole=frozenset(told["whole"]),
        points=tuple(points),
        settings=told,
    )


def _described(file: SweepFile, server: ForkServer) -> dict[str, Any]:
    samples = [file.space.overrides(file.space.sample(proposal_seed(file.plan.seed, n))) for n in range(_SAMPLES)]
    given = [point for point in _given_points(file) if isinstance(point, dict)]
    told = server.begin(
        {
            "kind": "describe",
            "settings_file": str(file.settings_file),
            "overrides": file.plan.overrides,
            "points": [*samples, *({str(name): value for name, value in point.items()} for point in given)],
            "names": list(file.space.names),
        }
    )()
    if told is None:
        raise SweepError(
            f"The process that executed {file.settings_file} has ended without a word. Try "
            f"`experiments_manager check {file.settings_file}`."
        )
    return told


def _given_points(file: SweepFile) -> Sequence[Any]:
    return file.plan.start_from if isinstance(file.plan.start_from, list) else ()


def _placed(file: SweepFile, problem: Problem) -> Problem:
    """Return a problem with a value from outside at the place in the sweep file that gives the value."""
    if problem.file != OVERRIDE:
        return problem
    name = next(
        (key for key in (problem.name, problem.name.removeprefix(HPARAMS)) if key in _all_keys(file)), problem.name
    )
    where = "overrides" if name in file.plan.overrides else "space" if name in file.space.names else "start_from"
    hint = next((hint for expected, hint in _HINTS.items() if where == "space" and expected in problem.text), "")
    return file.problem(where, problem.text + hint, key=name)


def _all_keys(file: SweepFile) -> set[str]:
    return {*file.plan.overrides, *file.space.names, *(name for point in _given_points(file) for name in point)}


def _objectives(file: SweepFile, told: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names and modes of the objectives.

    Raises:
        SettingsError: There are more or fewer modes than objectives.
    """
    objective, mode = file.plan.objective, file.plan.objective_mode
    if callable(objective):
        return ("objective",), (mode if mode in ("min", "max") else "min",)
    names = [told["monitor"]] if objective is None else [objective] if isinstance(objective, str) else objective
    modes = [mode] * len(names) if isinstance(mode, str) else mode
    if not names or len(set(names)) < len(names):
        text = f"invalid value. Expected one column or several different ones, got {shown(names)}. Correct it."
        raise SettingsError([file.problem("objective", text)])
    if len(modes) != len(names):
        text = f"there are {len(modes)} modes for {len(names)} objectives. Expected one for each. Correct it."
        raise SettingsError([file.problem("objective_mode", text)])
    resolved = [
        told["mode"] if name == told["monitor"] and mode == "auto" else resolved_mode(name, mode)
        for name, mode in zip(names, modes, strict=True)
    ]
    return tuple(names), tuple(resolved)


def _points(file: SweepFile, current: Mapping[str, Any]) -> tuple[list[Point], list[Problem]]:
    """Translate the user's points; names that one leaves out have the values of the settings file."""
    found, problems = [], []
    for number, given in enumerate(_given_points(file), start=1):
        if not isinstance(given, dict):
            text = f"entry {number} is no point. Expected a dictionary of names and values, got {shown(given)}."
            problems.append(file.problem("start_from", text))
            continue
        point = file.space.point_for(given) or file.space.point_for({**current, **given})
        if point is None:
            text = (
                f"entry {number} lies outside of the space. Expected values that the space can give for "
                f"{', '.join(file.space.names)}, got {shown({**current, **given})}. Correct it, or widen the space."
            )
            problems.append(file.problem("start_from", text))
        else:
            found.append(point)
    return found, problems
