"""What the algorithm is told: the results so far as points with one loss each, comparable with each other."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from experiments_manager.sweeps.search.spaces import Point, Space
from experiments_manager.sweeps.state.trials import FINISHED, KNOWN, SweepState, Trial, losses

MOST_SHOWN = 250
"""Results that an algorithm is shown whose cost grows with them; the cost of a proposal is bounded by it."""
_SHARE_OF_BEST = 0.6


@dataclasses.dataclass(frozen=True)
class Known:
    """A result that proposals are made from."""

    number: int
    point: Point
    loss: float
    """Less is better."""


def proposal_seed(seed: int, number: int, repeat: int = 0) -> int:
    """Return the seed of one proposal, which differs from one trial to the next.

    Args:
        seed: Of the sweep.
        number: Of the trial.
        repeat: Counts the attempts to propose a point that was not tried yet.
    """
    words = [seed, number, repeat] if repeat else [seed, number]
    return int(np.random.SeedSequence(words).generate_state(1)[0] >> 1)


def shown_results(known: Sequence[Known]) -> list[Known]:
    """Choose the results that an algorithm is shown: the better ones and the newest, in their order."""
    if len(known) <= MOST_SHOWN:
        return list(known)
    most_best = int(_SHARE_OF_BEST * MOST_SHOWN)
    best = sorted(range(len(known)), key=lambda place: (known[place].loss, place))[:most_best]
    newest = [place for place in range(len(known) - 1, -1, -1) if place not in set(best)]
    return [known[place] for place in sorted([*best, *newest[: MOST_SHOWN - most_best]])]


_AUGMENTATION = 0.05
_FIRST_IDENTITY = 10**6


class History:
    """Results as an algorithm needs them.

    Args:
        space: The space that is searched now; points of earlier spaces are translated where they lie in it.
        modes: `min` or `max` for each objective.
        seed: Of the sweep.
    """

    def __init__(self, space: Space, modes: tuple[str, ...], seed: int) -> None:
        self._space, self._modes, self._seed = space, modes, seed
        self._translated: dict[int, Point | None] = {}

    def known(self, state: SweepState, number: int) -> list[Known]:
        """Return the results from which the proposal of a trial is made, in the order in which they came.

        Where trials were ended early, each one's loss is its place in the order of all: those trained for longer before
        those that were not, and among these the better ones first. So the values of short and long trainings need not
        be comparable, and none is left out; TPE looks at the order alone. Optuna's does the same.
        """
        trials = [trial for trial in state.completed() if self._point(trial) is not None and _has_values(trial)]
        found = self._scalars([losses(_longest(trial), self._modes) for trial in trials], number)
        if not all(_is_whole(trial) for trial in trials):
            order = sorted(range(len(trials)), key=lambda place: (-_length(trials[place]), found[place], place))
            found = [float(rank) for _, rank in sorted(zip(order, range(len(order)), strict=True))]
        return [Known(_identity(trial), self._point(trial), loss) for trial, loss in zip(trials, found, strict=True)]

    def pending(self, state: SweepState) -> list[Point]:
        """Return the points of the trials that run."""
        points = [self._point(trial) for trial in state.pending()]
        return [point for point in points if point is not None]

    def _point(self, trial: Trial) -> Point | None:
        if trial.space == self._space.digest:
            return trial.point
        if trial.number not in self._translated:
            self._translated[trial.number] = self._space.point_for(trial.overrides)
        return self._translated[trial.number]

    def _scalars(self, values: Sequence[tuple[float, ...]], number: int) -> list[float]:
        """Return one loss for each result.

        Several objectives become one by the augmented Tchebycheff norm with weights drawn for each proposal (Knowles,
        ParEGO, IEEE Transactions on Evolutionary Computation 10, 2006), so that the front is searched along its length.
        """
        if len(self._modes) == 1 or not values:
            return [loss for loss, *_ in values]
        table = np.asarray(values, dtype=float)
        span = np.ptp(table, axis=0)
        scaled = (table - table.min(axis=0)) / np.where(span > 0, span, 1.0)
        weights = np.random.default_rng(proposal_seed(self._seed, number)).dirichlet(np.ones(len(self._modes)))
        weighted = scaled * weights
        return [float(loss) for loss in weighted.max(axis=1) + _AUGMENTATION * weighted.sum(axis=1)]


def _is_whole(trial: Trial) -> bool:
    """Return whether a trial was trained to its end."""
    return trial.state in (FINISHED, KNOWN)


def _length(trial: Trial) -> float:
    """Return the epochs after which the values of a trial were taken; all that were not ended early are equal."""
    return math.inf if _is_whole(trial) else max(trial.reports, default=0)


def _longest(trial: Trial) -> tuple[float, ...]:
    """Return the values of a trial at its longest training so far; one that was promoted may be ahead of its pause."""
    return trial.values if _is_whole(trial) or not trial.reports else trial.reports[max(trial.reports)]


def _has_values(trial: Trial) -> bool:
    """Return whether there are values, which one that is tried again after a failure has lost, and all are finite."""
    return _longest(trial) is not None and all(map(math.isfinite, _longest(trial)))


def _identity(trial: Trial) -> int:
    """Return a number that hyperopt can count with: not negative, and lower for results of an earlier sweep."""
    return _FIRST_IDENTITY + trial.number
