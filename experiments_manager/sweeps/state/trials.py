"""The trials of a sweep, as they follow from the events of its journal."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from experiments_manager.sweeps.state.journal import Event

RUNNING, PAUSED = "running", "paused"
FINISHED, PRUNED, FAILED, KNOWN = "finished", "pruned", "failed", "known"


@dataclasses.dataclass
class Trial:
    """One trial.

    Attributes:
        number: From 0 on; results of an earlier sweep have negative numbers.
        point: Values by hyperopt's labels.
        overrides: Values by names of settings and hparams.
        space: Digest of the space that the point is of.
        by: Which algorithm proposed it, or `start_from`.
        state: `running`, `finished`, `pruned`, `paused` (it may be promoted), `failed`, or `known` (from an earlier
            sweep).
        values: Of the objectives, once it has ended.
        reports: Values of the objectives by epoch, where it was asked for them.
        reason: Why it failed or was ended early.
        attempts: How often it was begun anew after a failure.
        breaks: How often in a row its process was broken off without a further epoch in between.
    """

    number: int
    point: dict[str, Any]
    overrides: dict[str, Any]
    space: str
    by: str
    state: str = RUNNING
    values: tuple[float, ...] | None = None
    reports: dict[int, tuple[float, ...]] = dataclasses.field(default_factory=dict)
    reason: str | None = None
    epochs: int = 0
    seconds: float = 0.0
    attempts: int = 1
    breaks: int = 0
    broken_at: int = -1
    """Epochs that were trained when its process was broken off last."""
    curve: list[float | None] = dataclasses.field(default_factory=list)
    """The first objective by epoch."""

    @property
    def name(self) -> str:
        """Name of its run folder."""
        return trial_name(self.number, self.attempts)

    @property
    def has_result(self) -> bool:
        """Whether its values count for the best, at the full length of training."""
        return self.state in (FINISHED, KNOWN) and self.values is not None


def trial_name(number: int, attempt: int = 1) -> str:
    """Return the name of a trial's run folder; an attempt after a failure begins in a folder of its own."""
    return f"trial_{number:05d}" + (f"-{attempt}" if attempt > 1 else "")


class SweepState:
    """All that is known of a sweep; `apply` is the only way in which it changes.

    Attributes:
        trials: By number, in the order of proposals.
        completions: Numbers of trials in the order in which results came, those with values alone.
        seconds: Work of all processes, by their last events.
        before: Of these, those of earlier processes.
        jobs: Numbers of the cluster's jobs by `<trial>/<n>`, in the order in which they were submitted.
        opened: The last event `opened`: what the objectives are, and which space is searched.
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.trials: dict[int, Trial] = {}
        self.completions: list[int] = []
        self.seconds = 0.0
        self.opened: Event = {}
        self.before = 0.0
        self.jobs: dict[str, str] = {}
        for event in events:
            self.apply(event)

    def apply(self, event: Event) -> None:
        """Take note of an event."""
        getattr(self, f"_{event['event']}", self._other)(event)
        self.seconds = max(self.seconds, self.before + event.get("at", 0.0))

    def _other(self, event: Event) -> None:
        """Pass over an event of a later release."""

    def _opened(self, event: Event) -> None:
        self.opened = event
        self.before = self.seconds

    def _proposed(self, event: Event) -> None:
        number = event["trial"]
        self.trials[number] = Trial(number, event["point"], event["overrides"], event["space"], event["by"])

    def _known(self, event: Event) -> None:
        self._proposed({**event, "by": event["source"]})
        trial = self.trials[event["trial"]]
        trial.state, trial.values = KNOWN, tuple(event["values"])
        self._complete(trial.number)

    def _reported(self, event: Event) -> None:
        trial = self.trials[event["trial"]]
        trial.reports[event["epoch"]] = tuple(map(float, event["values"]))
        trial.epochs = max(trial.epochs, event["epoch"])
        if not event["go"]:
            trial.state = event["state"]
            trial.values, trial.reason = trial.reports[event["epoch"]], event.get("reason")
            trial.curve, trial.seconds = event.get("curve", []), trial.seconds + event.get("seconds", 0.0)
            self._complete(trial.number)

    def _promoted(self, event: Event) -> None:
        self.trials[event["trial"]].state = RUNNING

    def _retried(self, event: Event) -> None:
        trial = self.trials[event["trial"]]
        trial.state, trial.reason, trial.values, trial.reports = RUNNING, None, None, {}
        trial.attempts, trial.breaks, trial.broken_at = trial.attempts + 1, 0, -1

    def _interrupted(self, event: Event) -> None:
        trial = self.trials[event["trial"]]
        if event["counts"]:
            trial.breaks = trial.breaks + 1 if event["epoch"] <= trial.broken_at else 1
            trial.broken_at = max(trial.broken_at, event["epoch"])

    def _submitted(self, event: Event) -> None:
        self.jobs[event["folder"]] = event["job"]

    def _ended(self, event: Event) -> None:
        trial = self.trials[event["trial"]]
        trial.state, trial.reason = event["state"], event.get("reason")
        trial.values = tuple(map(float, event["values"])) if event.get("values") else None
        trial.epochs = event.get("epochs", trial.epochs)
        trial.seconds += event.get("seconds", 0.0)
        trial.curve = event.get("curve", trial.curve)
        if trial.values is not None:
            self._complete(trial.number)

    def _complete(self, number: int) -> None:
        if number in self.completions:
            self.completions.remove(number)
        self.completions.append(number)

    @property
    def proposed(self) -> int:
        """How many trials were proposed."""
        return sum(number >= 0 for number in self.trials)

    def of_state(self, *states: str) -> list[Trial]:
        """Return the trials in one of these states, in the order of proposals."""
        return [trial for trial in self.trials.values() if trial.state in states]

    def pending(self) -> list[Trial]:
        """Return the trials that run, in the order of their numbers: proposals keep away from them."""
        return sorted(self.of_state(RUNNING), key=lambda trial: trial.number)

    def completed(self) -> list[Trial]:
        """Return the trials with values, in the order in which these came."""
        return [self.trials[number] for number in self.completions]


def losses(values: Iterable[float], modes: Iterable[str]) -> tuple[float, ...]:
    """Return values so that less is better in each."""
    return tuple(-value if mode == "max" else value for value, mode in zip(values, modes, strict=True))


def best_trial(trials: Iterable[Trial], modes: tuple[str, ...]) -> Trial | None:
    """Return the trial with the best first objective, the earlier of two that are equal, or `None`."""
    ranked = [
        (losses(trial.values, modes)[0], trial.number)
        for trial in trials
        if trial.has_result and all(map(math.isfinite, trial.values))
    ]
    by_number = {trial.number: trial for trial in trials}
    return by_number[min(ranked)[1]] if ranked else None


def pareto_front(trials: Iterable[Trial], modes: tuple[str, ...]) -> list[Trial]:
    """Return the trials that no other one beats in all objectives, by the first of these."""
    finite = [trial for trial in trials if trial.has_result and all(map(math.isfinite, trial.values))]
    found = [(losses(trial.values, modes), trial) for trial in finite]
    front = [(values, trial) for values, trial in found if not any(_dominates(other, values) for other, _ in found)]
    return [trial for _, trial in sorted(front, key=lambda pair: (pair[0], pair[1].number))]


def _dominates(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return first != second and all(one <= other for one, other in zip(first, second, strict=True))


def plain_overrides(overrides: Mapping[str, Any], whole: Iterable[str]) -> dict[str, Any]:
    """Turn 16.0 into 16 where a whole number is wanted."""
    return {
        name: int(value) if name in set(whole) and isinstance(value, float) and value.is_integer() else value
        for name, value in overrides.items()
    }
