"""Trials as columns of numbers: what figures are drawn of, and which hyperparameters matter."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments_manager.sweeps.state.trials import SweepState, Trial, losses

ENOUGH_FOR_IMPORTANCE = 8
"""Results from which importance is worth showing."""
_LOG_RATIO = 50.0
_AVERAGED = 50
"""Trials over which a contour averages the other hyperparameters."""
_TREES = 100


@dataclasses.dataclass(frozen=True)
class SearchedHyperparameter:
    """One hyperparameter over all trials.

    Attributes:
        name: Its name.
        values: Floats [trials]; NaN where a trial does not set it. Of one that is no number, the place in `labels`.
        labels: Its values as texts, where it is no number.
        logarithmic: Whether it is drawn on a logarithmic axis.
    """

    name: str
    values: np.ndarray
    labels: tuple[str, ...] | None
    logarithmic: bool

    @property
    def scaled(self) -> np.ndarray:
        """The values as far apart as they are drawn."""
        return np.log10(self.values) if self.logarithmic else self.values


@dataclasses.dataclass(frozen=True)
class Analysis:
    """Trials that have a result.

    Attributes:
        trials: These, by number.
        objectives: Names of the objectives.
        modes: `min` or `max` for each.
        values: Floats [trials, objectives].
        dimensions: What varies among them.
    """

    trials: tuple[Trial, ...]
    objectives: tuple[str, ...]
    modes: tuple[str, ...]
    values: np.ndarray
    dimensions: tuple[SearchedHyperparameter, ...]

    @property
    def losses(self) -> np.ndarray:
        """The first objective, so that less is better."""
        return -self.values[:, 0] if self.modes[0] == "max" else self.values[:, 0]


def analyse(state: SweepState, objectives: Sequence[str], modes: Sequence[str]) -> Analysis:
    """Bring the trials with finite results into columns."""
    trials = tuple(
        trial
        for _, trial in sorted(state.trials.items())
        if trial.values is not None and all(map(math.isfinite, trial.values))
    )
    names = sorted({name for trial in trials for name in trial.overrides})
    dimensions = [_dimension(name, [trial.overrides.get(name) for trial in trials]) for name in names]
    varying = [
        dimension for dimension in dimensions if len(np.unique(dimension.values[~np.isnan(dimension.values)])) > 1
    ]
    values = np.array([trial.values for trial in trials], dtype=float).reshape(len(trials), len(objectives))
    return Analysis(trials, tuple(objectives), tuple(modes), values, tuple(varying))


def _dimension(name: str, values: Sequence[Any]) -> SearchedHyperparameter:
    given = [value for value in values if value is not None]
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in given):
        numbers = np.array([math.nan if value is None else float(value) for value in values])
        positive = len(given) > 0 and min(given) > 0
        return SearchedHyperparameter(name, numbers, None, bool(positive and max(given) / min(given) > _LOG_RATIO))
    labels = tuple(sorted({str(value) for value in given}))
    places = [math.nan if value is None else float(labels.index(str(value))) for value in values]
    return SearchedHyperparameter(name, np.array(places), labels, False)


def importance(analysis: Analysis) -> dict[str, float]:
    """Return which share of the differences in the first objective each hyperparameter accounts for.

    By permutation in a random forest (Breiman, Machine Learning 45, 2001), fitted to the ranks of the results, so that
    a few trials that went astray do not count for all; the shares add up to 1.

    Returns:
        Shares by name, the largest first; empty where there are too few results, or scikit-learn is not installed.
    """
    forest = fit_forest(analysis)
    if forest is None:
        return {}
    from sklearn.inspection import permutation_importance

    table = _table(analysis)
    found = permutation_importance(forest, table, _ranks(analysis.losses), n_repeats=10, random_state=0)
    shares = np.clip(found.importances_mean, 0, None)
    shares = shares / (shares.sum() or 1.0)
    pairs = [(dimension.name, float(share)) for dimension, share in zip(analysis.dimensions, shares, strict=True)]
    return dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))


def fit_forest(analysis: Analysis) -> Any | None:
    """Fit a random forest that predicts the rank of a result; `None` where that is not possible."""
    if len(analysis.trials) < ENOUGH_FOR_IMPORTANCE or not analysis.dimensions or np.ptp(analysis.losses) == 0:
        return None
    try:
        from sklearn.ensemble import RandomForestRegressor
    except ImportError:
        return None
    forest = RandomForestRegressor(_TREES, min_samples_leaf=2, random_state=0, n_jobs=1)
    return forest.fit(_table(analysis), _ranks(analysis.losses))


def predicted(forest: Any, analysis: Analysis, first: str, second: str, size: int = 30) -> tuple[np.ndarray, ...]:
    """Predict the rank over two hyperparameters, averaged over the values that trials have of the others.

    Returns:
        Places along the first and along the second axis [size], as far apart as drawn, and ranks [size, size].
    """
    names = [dimension.name for dimension in analysis.dimensions]
    table = _table(analysis)[:_AVERAGED]
    columns = [names.index(first), names.index(second)]
    axes = [np.linspace(*_range(analysis.dimensions[column].scaled), size) for column in columns]
    ranks = np.empty((size, size))
    for row, other in enumerate(axes[1]):
        points = np.repeat(table[None], size, axis=0)
        points[:, :, columns[0]] = axes[0][:, None]
        points[:, :, columns[1]] = other
        ranks[row] = forest.predict(points.reshape(-1, table.shape[1])).reshape(size, -1).mean(axis=1)
    return axes[0], axes[1], ranks


def _range(values: np.ndarray) -> tuple[float, float]:
    return float(np.nanmin(values)), float(np.nanmax(values))


def _table(analysis: Analysis) -> np.ndarray:
    """Return the hyperparameters [trials, names]; one that a trial does not set lies below all others."""
    columns = []
    for dimension in analysis.dimensions:
        low, high = _range(dimension.scaled)
        columns.append(np.where(np.isnan(dimension.scaled), low - (high - low) / 2, dimension.scaled))
    return np.stack(columns, axis=1)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks between 0 (the best) and 1."""
    return np.argsort(np.argsort(values, kind="stable"), kind="stable") / max(1, len(values) - 1)


def running_best(analysis: Analysis) -> np.ndarray:
    """Return the best value so far after each trial."""
    best = np.minimum.accumulate(analysis.losses)
    return -best if analysis.modes[0] == "max" else best


def front_of(analysis: Analysis) -> np.ndarray:
    """Return which trials no other one beats in all objectives."""
    table = np.array([losses(row, analysis.modes) for row in analysis.values])
    beaten = (table[None] <= table[:, None]).all(axis=2) & (table[None] < table[:, None]).any(axis=2)
    return ~beaten.any(axis=1)
