"""Ending trials early: by the median of the others, or by asynchronous successive halving (ASHA).

Both are asked after an epoch, with the best values of the trial so far, and answer from what the journal holds; so a
sweep that was killed decides as it would have.

ASHA: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020. A trial that is not among the best
of its rung is paused with a checkpoint, and goes on from there if later ones turn out to be worse.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Literal, Protocol

from experiments_manager.sweeps.state.trials import PAUSED, PRUNED, SweepState, Trial, losses
from experiments_manager.sweeps.sweep_plan import AshaRules, MedianRules


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether a trial goes on; if not, the state that it is in from then on, and why."""

    go: bool
    state: str = ""
    reason: str | None = None


GO = Verdict(True)


class Pruner(Protocol):
    """Decides which trials end early."""

    @property
    def asks(self) -> Literal["every"] | list[int]:
        """The epochs after which a trial asks whether it goes on."""

    def verdict(self, state: SweepState, trial: Trial, epoch: int, values: Sequence[float]) -> Verdict:
        """Decide whether a trial goes on after an epoch."""

    def promotable(self, state: SweepState) -> Trial | None:
        """Return a paused trial that should go on."""


class NoPruner:
    """Lets every trial run to its end."""

    asks: list[int] = []

    def verdict(self, state: SweepState, trial: Trial, epoch: int, values: Sequence[float]) -> Verdict:
        """Let every trial go on."""
        return GO

    def promotable(self, state: SweepState) -> Trial | None:
        """Return no trial: none waits for a promotion."""
        return None


class MedianPruner:
    """Ends a trial that is worse than the median of the others at the same epoch."""

    asks: Literal["every"] = "every"

    def __init__(self, rules: MedianRules, modes: tuple[str, ...]) -> None:
        self._rules, self._modes = rules, modes

    def verdict(self, state: SweepState, trial: Trial, epoch: int, values: Sequence[float]) -> Verdict:
        """End it, or let it go on."""
        others = [
            _loss(other.reports[epoch], self._modes)
            for other in state.trials.values()
            if other.number != trial.number and epoch in other.reports
        ]
        if epoch <= self._rules.warmup_epochs or len(others) < self._rules.min_trials:
            return GO
        median, loss = statistics.median(others), _loss(values, self._modes)
        if loss == math.inf:
            return Verdict(False, PRUNED, f"diverged by epoch {epoch}")
        if loss <= median:
            return GO
        sign = -1 if self._modes[0] == "max" else 1
        return Verdict(False, PRUNED, f"worse than the median {sign * median:.6g} at epoch {epoch}")

    def promotable(self, state: SweepState) -> Trial | None:
        """Return nothing: what was ended stays so."""
        return None


class AshaPruner:
    """Asynchronous successive halving.

    Args:
        rules: Of the sweep file.
        modes: Of the objectives; the first one counts.
        epochs: Of a whole trial.
    """

    def __init__(self, rules: AshaRules, modes: tuple[str, ...], epochs: int) -> None:
        self._rules, self._modes = rules, modes
        self.rungs = rungs(rules, epochs)

    @property
    def asks(self) -> list[int]:
        """The rungs below the whole length."""
        return self.rungs

    def verdict(self, state: SweepState, trial: Trial, epoch: int, values: Sequence[float]) -> Verdict:
        """Let it go on if it is among the best of its rung, else pause it."""
        reached = self._reached(state, epoch)
        reached[trial.number] = _loss(values, self._modes)
        if trial.number in self._best(reached):
            return GO
        return Verdict(False, PAUSED, f"not among the best 1 in {self._rules.reduction} after {epoch} epochs")

    def promotable(self, state: SweepState) -> Trial | None:
        """Return the best paused trial that belongs to the best of its rung, of the highest rung that has one."""
        for rung in reversed(self.rungs):
            for number in self._best(self._reached(state, rung)):
                trial = state.trials[number]
                if trial.state == PAUSED and max(trial.reports) == rung:
                    return trial
        return None

    def _reached(self, state: SweepState, rung: int) -> dict[int, float]:
        return {
            trial.number: _loss(trial.reports[rung], self._modes)
            for trial in state.trials.values()
            if rung in trial.reports
        }

    def _best(self, reached: dict[int, float]) -> list[int]:
        ranked = sorted(reached, key=lambda number: (reached[number], number))[: len(reached) // self._rules.reduction]
        return [number for number in ranked if reached[number] < math.inf]


def _loss(values: Sequence[float], modes: tuple[str, ...]) -> float:
    """Return the first objective so that less is better; a trial that has diverged is worse than any other."""
    loss = losses(values, modes)[0]
    return loss if math.isfinite(loss) else math.inf


def rungs(rules: AshaRules, epochs: int) -> list[int]:
    """Return the epochs at which trials are compared: a geometric series below the whole length."""
    found, rung = [], rules.min_epochs
    while rung < epochs:
        found.append(rung)
        rung *= rules.reduction
    return found


def make_pruner(rules: MedianRules | AshaRules | None, modes: tuple[str, ...], epochs: int) -> Pruner:
    """Make what decides which trials end early."""
    if isinstance(rules, MedianRules):
        return MedianPruner(rules, modes)
    return AshaPruner(rules, modes, epochs) if isinstance(rules, AshaRules) else NoPruner()
