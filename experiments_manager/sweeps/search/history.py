"""What the algorithm is told: the results so far as points with one loss each, comparable with each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from experiments_manager.sweeps.search.algorithms import Known, proposal_seed
from experiments_manager.sweeps.search.spaces import Point, Space
from experiments_manager.sweeps.state.trials import FINISHED, KNOWN, SweepState, Trial, losses

ENOUGH = 20
"""Results at one length of training from which TPE does more than draw at random."""
_AUGMENTATION = 0.05
_FIRST_IDENTITY = 10**6


class History:
    """Results as an algorithm needs them.

    Args:
        space: The space that is searched now; points of earlier spaces are translated where they lie in it.
        modes: `min` or `max` for each objective.
        rungs: Epochs after which successive halving compares trials; empty without it.
        seed: Of the sweep.
    """

    def __init__(self, space: Space, modes: tuple[str, ...], rungs: Sequence[int], seed: int) -> None:
        self._space, self._modes, self._rungs, self._seed = space, modes, list(rungs), seed
        self._translated: dict[int, Point | None] = {}

    def known(self, state: SweepState, number: int) -> list[Known]:
        """Return the results from which the proposal of a trial is made, in the order in which they came."""
        compared = self._comparable(state.completed())
        pairs = [(trial, losses(compared[trial.number], self._modes)) for trial in state.completed()
                 if trial.number in compared and self._point(trial) is not None]  # fmt: skip
        pairs = [(trial, values) for trial, values in pairs if all(map(math.isfinite, values))]
        scalar = self._scalars([values for _, values in pairs], number)
        return [
            Known(_identity(trial), self._point(trial), loss) for (trial, _), loss in zip(pairs, scalar, strict=True)
        ]

    def _point(self, trial: Trial) -> Point | None:
        if trial.space == self._space.digest:
            return trial.point
        if trial.number not in self._translated:
            self._translated[trial.number] = self._space.point_for(trial.overrides)
        return self._translated[trial.number]

    def _comparable(self, completed: Sequence[Trial]) -> Mapping[int, tuple[float, ...]]:
        """Return values of the longest training that enough trials have reached (Falkner et al., BOHB, ICML 2018)."""
        whole = {trial.number: trial.values for trial in completed if trial.state in (FINISHED, KNOWN)}
        if not self._rungs:
            return {trial.number: trial.values for trial in completed}
        if len(whole) >= ENOUGH:
            return whole
        for rung in reversed(self._rungs):
            reached = {trial.number: trial.reports.get(rung, trial.values) for trial in completed
                       if rung in trial.reports or trial.number in whole}  # fmt: skip
            if len(reached) >= ENOUGH:
                return reached
        return {trial.number: trial.reports.get(self._rungs[0], trial.values) for trial in completed}

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


def _identity(trial: Trial) -> int:
    """Return a number that hyperopt can count with: not negative, and lower for results of an earlier sweep."""
    return _FIRST_IDENTITY + trial.number
