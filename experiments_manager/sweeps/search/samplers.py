"""Samplers beside hyperopt's, over the same spaces: Optuna's TPE and Gaussian process, CMA-ES, and Sobol sequences.

Each is a function of what is known, what runs, and a seed, as the proposals of `algorithms.py` are. Optuna's samplers
are shown a study that is made anew for each proposal, so that nothing is remembered which the journal does not hold.
CMA-ES, which Optuna takes from the package cmaes too, has a state that follows from its results; it is computed from
them again, some tenths of a millisecond for each generation.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from experiments_manager.sweeps.search.dimensions import Dimension, dimensions
from experiments_manager.sweeps.search.history import Known, shown_results
from experiments_manager.sweeps.search.spaces import Point, Space, SpaceError

if TYPE_CHECKING:
    import optuna

FIRST_POINTS = 10
"""Points of a Sobol sequence before there are results enough for a model."""
MODULES = {"optuna-tpe": ("optuna",), "gp": ("optuna", "torch", "scipy"), "cma-es": ("cmaes",), "qmc": ("scipy",)}
"""What each sampler needs to be importable."""


class Sampler(Protocol):
    """Proposes points from the history of a sweep."""

    def propose(self, number: int, known: Sequence[Known], pending: Sequence[Point], seed: int) -> Point:
        """Propose the point of a trial.

        Args:
            number: The trial's number.
            known: Results in the order in which they came.
            pending: Points of the trials that run.
            seed: Of this proposal.
        """


def missing_modules(name: str) -> list[str]:
    """Return which of the modules that a sampler needs cannot be imported."""
    missing = []
    for module in MODULES.get(name, ()):
        try:
            importlib.import_module(module)
        except (ImportError, OSError):  # OSError: a library of the system is missing
            missing.append(module)
    return missing


class Sobol:
    """Points of a scrambled Sobol sequence, at the quantiles of the distributions.

    Args:
        space: Where to search.
        seed: Of the sweep: the sequence is one for all proposals.

    Raises:
        SpaceError: The space is none for it.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self._space, self._dimensions, self._seed = space, dimensions(space), seed

    def propose(self, number: int, known: Sequence[Known], pending: Sequence[Point], seed: int) -> Point:
        """Propose the point of that number in the sequence, or one at random where it was tried already."""
        from scipy.stats import qmc

        sequence = qmc.Sobol(len(self._dimensions), scramble=True, seed=np.random.default_rng(self._seed))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of lengths that are no powers of two
            units = sequence.fast_forward(number).random(1)[0] if number else sequence.random(1)[0]
        by_label = dict(zip(self._dimensions, map(float, units), strict=True))
        point = self._space.point_by(lambda label: _at(self._dimensions[label], by_label[label]))
        was_tried = point in pending or any(point == result.point for result in known)
        return self._space.sample(seed) if was_tried else point


def _at(dimension: Dimension, unit: float) -> float | int:
    return dimension.value(dimension.of_unit(unit))


class OptunaSampler:
    """One of Optuna's samplers, with points of a Sobol sequence before there is enough to make a model of.

    Args:
        make: Makes the sampler from a seed.
        space: Where to search.
        seed: Of the sweep.

    Raises:
        SpaceError: The space is none for it.
    """

    def __init__(self, make: Callable[[int], optuna.samplers.BaseSampler], space: Space, seed: int) -> None:
        self._make, self._space, self._dimensions = make, space, dimensions(space)
        self._first = Sobol(space, seed)
        self._distributions = {label: _distribution(item) for label, item in self._dimensions.items()}

    def propose(self, number: int, known: Sequence[Known], pending: Sequence[Point], seed: int) -> Point:
        """Propose the point that Optuna would try next."""
        if len(known) + len(pending) < FIRST_POINTS or len(known) < 2:
            return self._first.propose(number, known, pending, seed)
        import optuna

        with _quiet():
            study = optuna.create_study(sampler=self._make(seed % 2**32))
            study.add_trials([self._trial(result.point, result.loss) for result in shown_results(known)])
            study.add_trials([self._trial(point) for point in pending])
            trial = study.ask()
            return self._space.point_by(lambda label: self._suggested(trial, label))

    def _trial(self, point: Point, loss: float | None = None) -> optuna.trial.FrozenTrial:
        import optuna

        return optuna.create_trial(
            state=optuna.trial.TrialState.RUNNING if loss is None else optuna.trial.TrialState.COMPLETE,
            value=loss,
            params={label: self._dimensions[label].latent(value) for label, value in point.items()},
            distributions={label: self._distributions[label] for label in point},
        )

    def _suggested(self, trial: optuna.Trial, label: str) -> float | int:
        dimension = self._dimensions[label]
        if dimension.shares:
            latent = trial.suggest_categorical(label, range(len(dimension.shares)))
        elif dimension.is_whole:
            latent = trial.suggest_int(label, int(dimension.low), int(dimension.high))
        else:
            latent = trial.suggest_float(label, dimension.low, dimension.high)
        return dimension.value(latent)


def _distribution(dimension: Dimension) -> optuna.distributions.BaseDistribution:
    from optuna import distributions

    if dimension.shares:
        return distributions.CategoricalDistribution(range(len(dimension.shares)))
    if dimension.is_whole:
        return distributions.IntDistribution(int(dimension.low), int(dimension.high))
    return distributions.FloatDistribution(dimension.low, dimension.high)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from telling of each study, and from warning that its options are experimental."""
    from optuna import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)


def _optuna_tpe(seed: int) -> optuna.samplers.BaseSampler:
    from optuna.samplers import TPESampler

    # without `group`, which on the conditional space of tools/bench/samplers.py was no better
    return TPESampler(multivariate=True, constant_liar=True, n_startup_trials=0, seed=seed)


def _gaussian_process(seed: int) -> optuna.samplers.BaseSampler:
    from optuna.samplers import GPSampler

    return GPSampler(n_startup_trials=0, seed=seed, deterministic_objective=False)


class CmaEs:
    """CMA-ES on the unit cube of quantiles; with categories CatCMA, which learns their probabilities.

    Hansen, "The CMA Evolution Strategy: A Tutorial", arXiv:1604.00772; Hamano et al., "CatCMA: Stochastic Optimization
    for Mixed-Category Problems", GECCO 2024. A generation consists of as many results as the population, in the order
    in which they came, whoever proposed them: with several trials at a time none is lost. Hyperparameters of branches
    that a result did not choose count as the mean. Once it has converged, it begins again elsewhere.

    Args:
        space: Where to search.
        seed: Of the sweep.

    Raises:
        SpaceError: The space has no numbers.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self._space, self._seed = space, seed
        found = dimensions(space)
        self._numbers = [item for item in found.values() if not item.shares]
        self._categories = [item for item in found.values() if item.shares]
        if not self._numbers:
            raise SpaceError(
                "CMA-ES needs at least one number. Expected e.g. `hp.uniform` beside the choices, got `hp.choice` "
                "alone. Choose `algorithm = 'tpe'`, or 'grid'."
            )

    def propose(self, number: int, known: Sequence[Known], pending: Sequence[Point], seed: int) -> Point:
        """Draw a point from the distribution that the results so far lead to."""
        strategy = self._after(known)
        strategy.reseed_rng(seed % 2**32)
        units, chosen = strategy.ask() if self._categories else (strategy.ask(), ())
        values = {item.label: _at(item, float(unit)) for item, unit in zip(self._numbers, units, strict=True)} | {
            item.label: int(np.argmax(one)) for item, one in zip(self._categories, chosen, strict=True)
        }
        return self._space.point_by(values.__getitem__)

    def _after(self, known: Sequence[Known]) -> Any:
        strategy, begun = self._begin(0), 0
        size = strategy.population_size
        for first in range(0, len(known) - size + 1, size):
            strategy.tell(
                [(self._solution(result.point, strategy), result.loss) for result in known[first : first + size]]
            )
            if strategy.should_stop():
                begun += 1
                strategy = self._begin(begun)
        return strategy

    def _begin(self, time: int) -> Any:
        import cmaes

        size = len(self._numbers)
        mean = np.full(size, 0.5) if time == 0 else np.random.default_rng([self._seed, time]).uniform(0.1, 0.9, size)
        common = {"mean": mean, "sigma": _SIGMA, "bounds": np.tile([0.0, 1.0], (size, 1)), "seed": 0}
        if not self._categories:
            return cmaes.CMA(**common)
        counts = [len(item.shares) for item in self._categories]
        first = np.zeros((len(counts), max(counts)))
        for row, item in zip(first, self._categories, strict=True):
            row[: len(item.shares)] = item.shares
        return cmaes.CatCMA(**common, cat_num=np.array(counts), cat_param=first)

    def _solution(self, point: Point, strategy: Any) -> Any:
        units = np.array(
            [
                item.unit(item.latent(point[item.label])) if item.label in point else mean
                for item, mean in zip(self._numbers, strategy.mean, strict=True)
            ]
        )
        if not self._categories:
            return units
        chosen = np.zeros((len(self._categories), max(len(item.shares) for item in self._categories)))
        for row, item in zip(chosen, self._categories, strict=True):
            if item.label in point:
                row[int(point[item.label])] = 1.0
            else:
                row[: len(item.shares)] = item.shares
        return units, chosen


_SIGMA = 1 / 6
"""First standard deviation of CMA-ES, in the unit cube, as Optuna has it."""
SAMPLERS: dict[str, Callable[[Space, int], Sampler]] = {
    "optuna-tpe": functools.partial(OptunaSampler, _optuna_tpe),
    "gp": functools.partial(OptunaSampler, _gaussian_process),
    "cma-es": CmaEs,
    "qmc": Sobol,
}
"""Each by its name in a sweep file."""
