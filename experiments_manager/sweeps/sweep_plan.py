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

from experiments_manager.settings.types import Count, PathText, Positive, PositiveCount, Text

AlgorithmName = Literal["auto", "optuna-tpe", "gp", "cma-es", "qmc", "tpe", "atpe", "anneal", "random", "grid"]
ALGORITHMS: tuple[str, ...] = get_args(AlgorithmName)
Mode = Literal["auto", "min", "max"]
Reduction = Annotated[int, annotated_types.Ge(2)]


class Rules(pydantic.BaseModel):
    """A dictionary of options, checked by type; an unknown key is refused."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


class StopWhen(Rules):
    """When a sweep ends before `max_trials`."""

    no_progress: PositiveCount | None = pydantic.Field(None, description="Trials that ended without a new best.")
    hours: Positive | None = pydantic.Field(None, description="Hours of work, those before a resume included.")
    target: float | None = pydantic.Field(None, description="A value of the objective that is good enough.")


class MedianRules(Rules):
    """End a trial whose best value so far is worse than the median of the others' at the same epoch."""

    method: Literal["median"] = "median"
    warmup_epochs: Count = pydantic.Field(1, description="Epochs for which every trial is left alone.")
    min_trials: PositiveCount = pydantic.Field(
        5, description="Trials that must have reached an epoch before one is ended there."
    )


class AshaRules(Rules):
    """Asynchronous successive halving: train many for a few epochs, and the best of them for longer and longer."""

    method: Literal["asha"] = "asha"
    min_epochs: PositiveCount = pydantic.Field(1, description="Epochs of the first rung, which every trial reaches.")
    reduction: Reduction = pydantic.Field(
        3, description="One in so many goes on to the next rung, which is so many times as long."
    )


PruneRules = Annotated[MedianRules | AshaRules, pydantic.Field(discriminator="method")]


def option(default: Any, doc: str) -> Any:
    """Return one row of the table below."""
    return pydantic.Field(default=default, description=doc)


class SweepPlan(Rules):
    """What a sweep file says. The rows read: name, type, default, meaning."""

    model_config = pydantic.ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, frozen=True, arbitrary_types_allowed=True
    )

    # fmt: off
    settings_file: PathText = option(..., "The settings file of the experiment, seen from the folder of the sweep file.")
    space: dict[str, Any] = option(..., "What to vary: keys of `hparams` and names of settings, each with an expression of hyperopt's `hp` or a constant.")
    algorithm: AlgorithmName | Callable[..., Any] = option("auto", "How proposals are made; or a suggest function of hyperopt's form.")
    objective: Text | list[Text] | Callable[..., Any] | None = option(None, "A column of `metrics.csv`, taken at the best epoch of the run; a list of them for a Pareto front; or a function `objective(run)` that returns a number to be minimised. `None`: the watched value.")
    objective_mode: Mode | list[Mode] = option("auto", "Whether less or more of the objective is better, `min` or `max`; `auto` tells by its name.")
    max_trials: PositiveCount = option(30, "Trials that are proposed at most.")
    parallel: PositiveCount = option(1, "Trials that run at the same time.")
    seed: Count = option(42, "From which every proposal follows.")
    stop_when: StopWhen = option(StopWhen(), "When to end before `max_trials`: `no_progress`, `hours`, `target`.")
    prune: PruneRules | None = option(None, "How bad trials are ended early: `'median'`, `'asha'`, or a dictionary of `method` and its options.")
    start_from: list[Any] | PathText = option([], "Points to try first, each a dictionary of names and values; or the folder of an earlier sweep, whose results are known from the start.")
    overrides: dict[str, Any] = option({}, "Further settings that every trial is run with.")
    trials_per_process: PositiveCount = option(1, "Trials that a process runs one after another; more than one saves time where trials are short.")
    trial_timeout: Positive | None = option(None, "Seconds without progress after which a trial is ended as failed.")
    memory_limit: Text | PositiveCount | None = option(None, "Memory that a trial may use, in bytes or as in `'4 GiB'`; one that needs more is ended as failed.")
    cluster: dict[str, Any] = option({}, "What each trial's job asks of a cluster with `--executor slurm`, e.g. `{'time': '1:00:00', 'cpus': 4}`; counts before `cluster` of the settings file.")
    # fmt: on

    @pydantic.field_validator("prune", mode="before")
    @classmethod
    def _named_method(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value


REQUIRED = tuple(name for name, field in SweepPlan.model_fields.items() if field.is_required())
