"""Proposals: one face for hyperopt's algorithms and those of `samplers.py`, each proposal from a seed of its own.

A proposal is a function of the space, the sweep's seed, the trial's number, the trials that run, and the results known
at that moment, in the order in which they came. So it can be made again from the journal, and does not depend on what
a process did before.

hyperopt's cost grows with the results that it is shown. It is shown `MOST_SHOWN` at most: the better ones and the
newest, in their order. TPE gives old results little weight anyway (`linear_forgetting`, from 25 results on).
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from hyperopt import Trials, anneal, rand, tpe
from hyperopt.base import JOB_STATE_DONE, STATUS_OK, Domain, trials_from_docs
from hyperopt.pyll import dfs, scope
from hyperopt.pyll.base import Apply

from experiments_manager.common.error_text import reason
from experiments_manager.common.installation import install_command
from experiments_manager.sweeps.errors import SweepError
from experiments_manager.sweeps.search.history import Known, proposal_seed, shown_results
from experiments_manager.sweeps.search.samplers import FIRST_POINTS, SAMPLERS, Sampler, missing_modules
from experiments_manager.sweeps.search.spaces import Point, Space, SpaceError, point_of

AUTOMATIC = ("optuna-tpe", "anneal")
"""What `auto` stands for: the first that can be imported; by tools/bench/samplers.py, printed in docs/sweeps.md."""
_MOST_REPEATS = 10
"""Further attempts where a proposal was tried already."""

_WHEN = datetime.datetime(2000, 1, 1)
"""Stands for all times in what hyperopt is shown, so that no proposal depends on the clock."""


class Algorithm:
    """Makes proposals.

    Args:
        algorithm: A name (see `sweep_plan`), or a suggest function of hyperopt's form.
        space: Where to search.
        seed: Of the sweep.

    Attributes:
        name: Its name; for `auto` that of the one which was chosen.

    Raises:
        SweepError: The algorithm needs a package that is not installed.
        SpaceError: It cannot search this space.
    """

    def __init__(self, algorithm: str | Callable[..., Any], space: Space, seed: int) -> None:
        if algorithm == "auto":
            algorithm = automatic_algorithm()
        self._space, self._seed = space, seed
        self.name = algorithm if isinstance(algorithm, str) else getattr(algorithm, "__name__", "custom")
        if algorithm == "grid":
            space.grid_size()
        self._grid = space.grid() if algorithm == "grid" else None
        self._grid_next = 0
        self._sampler = _sampler(algorithm, space, seed) if self._grid is None else None
        self._repeats = 0 if callable(algorithm) else _MOST_REPEATS

    def propose(self, number: int, known: Sequence[Known], pending: Sequence[Point] = ()) -> Point | None:
        """Propose the point of a trial.

        A point that was tried already is proposed again only where no other is found: a trial repeats its value.

        Args:
            number: The trial's number; for a grid, that of the point in it.
            known: Results in the order in which they came.
            pending: Points of the trials that run, in the order of their numbers.

        Returns:
            The point; `None` where a grid has no further one.

        Raises:
            SweepError: The algorithm failed.
        """
        if self._sampler is None:
            return self._of_grid(number)
        tried = [result.point for result in known] + list(pending)
        try:
            for repeat in range(self._repeats + 1):
                seed = proposal_seed(self._seed, number, repeat)
                point = self._sampler.propose(number, known, pending, seed)
                if point not in tried:
                    break
        except Exception as error:
            raise SweepError(
                f"The algorithm {self.name} failed to propose trial {number}: {reason(error)}. "
                "Choose another `algorithm`, or correct the space."
            ) from error
        return point

    def _of_grid(self, number: int) -> Point | None:
        if number < self._grid_next:
            self._grid, self._grid_next = self._space.grid(), 0
        point = next(itertools.islice(self._grid, number - self._grid_next, None), None)
        self._grid_next = number + 1
        return point


class _Hyperopt:
    """A suggest function of hyperopt's form as a sampler; it does not know of trials that run."""

    def __init__(self, suggest: Callable[..., Any], space: Space) -> None:
        self._suggest, self._space = suggest, space

    def propose(self, number: int, known: Sequence[Known], pending: Sequence[Point], seed: int) -> Point:
        with _quiet():
            documents = self._suggest([number], self._space.domain, _trials(known, self._space.labels), seed)
        return point_of(documents[0]["misc"]["vals"])


def automatic_algorithm(former: str | None = None) -> str:
    """Return the algorithm that `auto` stands for here: the best of the benchmark that can be imported.

    Args:
        former: What it stood for when the sweep began, which it keeps if it can.
    """
    usable = [name for name in AUTOMATIC if not missing_modules(name)] or [AUTOMATIC[-1]]
    return former if former in usable else usable[0]


def _sampler(algorithm: str | Callable[..., Any], space: Space, seed: int) -> Sampler:
    if callable(algorithm):
        return _Hyperopt(algorithm, space)
    if algorithm not in SAMPLERS:
        return _Hyperopt(_adaptive_tpe(space) if algorithm == "atpe" else _SUGGEST[algorithm], space)
    missing = missing_modules(algorithm)
    if missing:
        extra = "sweeps-gp" if algorithm == "gp" else "sweeps-optuna"
        raise SweepError(
            f"The algorithm {algorithm!r} needs {' and '.join(missing)}, which cannot be imported. Install what it "
            f'needs by `{install_command(extra)}`, or choose `algorithm = "tpe"`.'
        )
    return SAMPLERS[algorithm](space, seed)


_SUGGEST = {
    "tpe": functools.partial(tpe.suggest, n_startup_jobs=FIRST_POINTS),
    "random": rand.suggest,
    "anneal": anneal.suggest,
}
"""hyperopt's; its TPE with fewer points at random than its own 20, which are most of a short sweep."""


def _adaptive_tpe(space: Space) -> Callable[..., Any]:
    try:
        import lightgbm  # noqa: F401
        import sklearn  # noqa: F401
        from hyperopt import atpe
    except (ImportError, OSError) as error:  # OSError: LightGBM wants libgomp of the system
        raise SweepError(
            f"The algorithm 'atpe' needs lightgbm and scikit-learn, which cannot be imported: {reason(error)}. "
            f"Install them by `{install_command('sweeps-atpe')}` (on Debian also `apt-get install libgomp1`), or "
            'choose `algorithm = "tpe"`.'
        ) from error

    for label in space.labels:
        _rehearse(atpe.suggest, label, space.domain.params[label])

    def suggest(new_ids: list[int], domain: Any, trials: Any, seed: int) -> Any:
        import random

        _give_bounds_by_position(domain)
        state = random.getstate(), np.random.get_state()  # it draws from both
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            return atpe.suggest(new_ids, domain, trials, seed)
        finally:
            random.setstate(state[0])
            np.random.set_state(state[1])

    return suggest


def _rehearse(suggest: Callable[..., Any], label: str, distribution: Apply) -> None:
    """Refuse a distribution that an algorithm fails on; each is tried alone, as a branch may hide it for many trials.

    Raises:
        SpaceError: The algorithm cannot search it.
    """
    domain = Domain(None, scope.hyperopt_param(label, distribution), pass_expr_memo_ctrl=False)
    _give_bounds_by_position(domain)
    try:
        with _quiet():
            suggest([0], domain, Trials(), 0)
    except Exception as error:
        name = {"categorical": "pchoice"}.get(distribution.name, distribution.name)
        raise SpaceError(
            f"the algorithm 'atpe' cannot search `hp.{name}` ({reason(error).splitlines()[0]}). Expected another "
            "distribution, e.g. `hp.choice` or `hp.quniform`. Use one, or choose `algorithm = 'tpe'`.",
            label,
        ) from error


def _give_bounds_by_position(domain: Any) -> None:
    """Let a space read `uniform(0, 1)` for `uniform(low=0, high=1)`, which `hp.uniformint` says: atpe needs it."""
    for node in dfs(domain.expr):
        if node.name == "hyperopt_param" and node.pos_args[1].named_args:
            distribution = node.pos_args[1]
            distribution.pos_args += [value for _, value in sorted(distribution.named_args, key=_place_of_bound)]
            distribution.named_args = []


def _place_of_bound(argument: tuple[str, Any]) -> int:
    return ("low", "mu", "high", "upper", "sigma", "q").index(argument[0])


def _trials(known: Sequence[Known], labels: Sequence[str]) -> Trials:
    return trials_from_docs([_document(result, labels) for result in shown_results(known)], validate=False)


def _document(result: Known, labels: Sequence[str]) -> dict[str, Any]:
    vals = {label: [result.point[label]] if label in result.point else [] for label in labels}
    idxs = {label: [result.number] * len(values) for label, values in vals.items()}
    misc = {"tid": result.number, "cmd": None, "workdir": None, "idxs": idxs}
    return {
        "tid": result.number,
        "spec": None,
        "result": {"status": STATUS_OK, "loss": result.loss},
        "misc": misc | {"vals": vals},
        "state": JOB_STATE_DONE,
        "owner": None,
        "book_time": _WHEN,
        "refresh_time": _WHEN,
        "exp_key": None,
        "version": 0,
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep hyperopt from logging each proposal."""
    logger = logging.getLogger("hyperopt")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
