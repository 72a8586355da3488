"""The table of all names that a sweep file may give: type, default, meaning.

This is the one place where such a name is declared; the checks, the hints for misspelt names and the reference in
`docs/sweeps.md` follow from it.
"""
# ruff: noqa: E501  (a table reads best with one row a line)

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

import annotated_types
import pydantic

from experiments_manager.common.suggestions import nearest_name
from experiments_manager.settings.options.cluster import ClusterOptions
from experiments_manager.settings.options.options import Options
from experiments_manager.settings.types import Count, PathText, Positive, PositiveCount, Text

AlgorithmName = Literal["auto", "optuna-tpe", "gp", "cma-es", "qmc", "tpe", "atpe", "anneal", "random", "grid"]
ALGORITHMS: tuple[str, ...] = get_args(AlgorithmName)
Mode = Literal["auto", "min", "max"]
Reduction = Annotated[int, annotated_types.Ge(2)]
_FROM_ONE, _FROM_ZERO = "a whole number from 1 on", "a whole number from 0 on"


def option(default: Any, expected: str, doc: str) -> Any:
    """Return one row of the tables below: its default, what it may be in words, and what it means."""
    return pydantic.Field(default=default, description=doc, json_schema_extra={"expected": expected})


class StopWhen(Options):
    """When a sweep ends before `max_trials`."""

    no_progress: PositiveCount | None = option(None, _FROM_ONE, "Trials that ended without a new best.")
    hours: Positive | None = option(None, "a number above 0", "Hours of work, those before a resume included.")
    target: float | None = option(None, "a number", "A value of the objective that is good enough.")


class MedianRules(Options):
    """End a trial whose best value so far is worse than the median of the others' at the same epoch."""

    method: Literal["median"] = option("median", "'median' or 'asha'", "Of ending trials early.")
    warmup_epochs: Count = option(1, _FROM_ZERO, "Epochs for which every trial is left alone.")
    min_trials: PositiveCount = option(
        5, _FROM_ONE, "Trials that must have reached an epoch before one is ended there."
    )


class AshaRules(Options):
    """Asynchronous successive halving: train many for a few epochs, and the best of them for longer and longer."""

    method: Literal["asha"] = option("asha", "'median' or 'asha'", "Of ending trials early.")
    min_epochs: PositiveCount = option(1, _FROM_ONE, "Epochs of the first rung, which every trial reaches.")
    reduction: Reduction = option(
        3, "a whole number from 2 on", "One in so many goes on to the next rung, which is so many times as long."
    )


PruneRules = Annotated[MedianRules | AshaRules, pydantic.Field(discriminator="method")]


class SweepPlan(Options):
    """What a sweep file says. The rows read: name, type, default, what it may be, meaning."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

    # fmt: off
    settings_file: PathText = option(..., "the settings file of the experiment, seen from the folder of the sweep file", "The settings file of the experiment, seen from the folder of the sweep file.")
    space: dict[str, Any] = option(..., "a dictionary of names, each with an expression such as `hp.uniform(LABEL, LOW, HIGH)`", "What to vary: keys of `hparams` and names of settings, each with an expression of hyperopt's `hp` or a constant.")
    algorithm: AlgorithmName | Callable[..., Any] = option("auto", f"one of {', '.join(map(repr, ALGORITHMS))}, or a suggest function of hyperopt's form", "How proposals are made; or a suggest function of hyperopt's form.")
    objective: Text | list[Text] | Callable[..., Any] | None = option(None, "the name of a column, a list of them, or a function `objective(run)`", "A column of `metrics.csv`, taken at the best epoch of the run; a list of them for a Pareto front; or a function `objective(run)` that returns a number to be minimised. `None`: the watched value.")
    objective_mode: Mode | list[Mode] = option("auto", "'auto', 'min' or 'max', or a list of them, one for each objective", "Whether less or more of the objective is better, `min` or `max`; `auto` tells by its name.")
    max_trials: PositiveCount = option(30, _FROM_ONE, "Trials that are proposed at most.")
    parallel: PositiveCount = option(1, _FROM_ONE, "Trials that run at the same time.")
    seed: Count = option(42, _FROM_ZERO, "From which every proposal follows.")
    stop_when: StopWhen = option(StopWhen(), "a dictionary with `no_progress`, `hours` or `target`", "When to end before `max_trials`: `no_progress`, `hours`, `target`.")
    prune: PruneRules | None = option(None, "'median', 'asha', or a dictionary with `method` and options of it", "How bad trials are ended early: `'median'`, `'asha'`, or a dictionary of `method` and its options.")
    start_from: list[Any] | PathText = option([], "a list of points, each a dictionary of names and values, or the folder of an earlier sweep", "Points to try first, each a dictionary of names and values; or the folder of an earlier sweep, whose results are known from the start.")
    overrides: dict[str, Any] = option({}, "a dictionary of settings and their values", "Further settings that every trial is run with.")
    trials_per_process: PositiveCount = option(1, _FROM_ONE, "Trials that a process runs one after another; more than one saves time where trials are short.")
    trial_timeout: Positive | None = option(None, "seconds, a number above 0, or None", "Seconds without progress after which a trial is ended as failed.")
    memory_limit: Text | PositiveCount | None = option(None, "bytes, or a text as '4 GiB'", "Memory that a trial may use, in bytes or as in `'4 GiB'`; one that needs more is ended as failed.")
    cluster: dict[str, Any] = option({}, "a dictionary such as {'time': '1:00:00', 'cpus': 4}", "What each trial's job asks of a cluster with `--executor slurm`, e.g. `{'time': '1:00:00', 'cpus': 4}`; counts before `cluster` of the settings file.")
    # fmt: on

    @pydantic.field_validator("prune", mode="before")
    @classmethod
    def _named_method(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value

    @classmethod
    def hint(cls, key: str, value: Any) -> str:
        """Return what may be meant by a wrong value."""
        known = {"algorithm": ALGORITHMS, "prune": ("median", "asha")}.get(key)
        near = nearest_name(value, known) if known and isinstance(value, str) else None
        return f"Did you mean {near!r}?" if near else "Correct it."


REQUIRED = tuple(name for name, field in SweepPlan.model_fields.items() if field.is_required())


def options_of(name: str, value: Any) -> type[Options] | None:
    """Return what declares the keys of a name's dictionary; `None` where it has no such keys, or nobody can tell."""
    if not isinstance(value, dict):
        return None
    if name == "prune":
        return {"median": MedianRules, "asha": AshaRules}.get(value.get("method"))
    return {"stop_when": StopWhen, "cluster": ClusterOptions}.get(name)
