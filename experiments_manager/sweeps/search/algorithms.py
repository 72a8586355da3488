"""Proposals: hyperopt's algorithms over what is known, each from a seed of its own.

A proposal is a function of the space, the sweep's seed, the trial's number and the results known at that moment, in the
order in which they came. So it can be made again from the journal, and does not depend on what a process did before.

hyperopt's cost grows with the results that it is shown. It is shown `MOST_SHOWN` at most: the better ones and the
newest, in their order. TPE gives old results little weight anyway (`linear_forgetting`, from 25 results on).
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from hyperopt import Trials, anneal, rand, tpe
from hyperopt.base import JOB_STATE_DONE, STATUS_OK, trials_from_docs
from hyperopt.pyll import dfs

from experiments_manager.common.error_text import reason
from experiments_manager.common.installation import install_command
from experiments_manager.sweeps.errors import SweepError
from experiments_manager.sweeps.search.spaces import Point, Space, point_of

MOST_SHOWN = 250
"""Results that hyperopt is shown; the cost of a proposal is bounded by it."""
_SHARE_OF_BEST = 0.6
_WHEN = datetime.datetime(2000, 1, 1)
"""Stands for all times in what hyperopt is shown, so that no proposal depends on the clock."""


@dataclasses.dataclass(frozen=True)
class Known:
    """A result that proposals are made from."""

    number: int
    point: Point
    loss: float
    """Less is better."""


class Algorithm:
    """Makes proposals.

    Args:
        algorithm: A name (see `sweep_plan`), or a suggest function of hyperopt's form.
        space: Where to search.
        seed: Of the sweep.

    Raises:
        SweepError: The algorithm needs a package that is not installed.
    """

    def __init__(self, algorithm: str | Callable[..., Any], space: Space, seed: int) -> None:
        self._space, self._seed = space, seed
        self.name = algorithm if isinstance(algorithm, str) else getattr(algorithm, "__name__", "custom")
        self._grid = space.grid() if algorithm == "grid" else None
        self._grid_next = 0
        self._suggest = algorithm if callable(algorithm) else _suggest_function(algorithm)

    def propose(self, number: int, known: Sequence[Known]) -> Point | None:
        """Propose the point of a trial.

        Args:
            number: The trial's number; for a grid, that of the point in it.
            known: Results in the order in which they came.

        Returns:
            The point; `None` where a grid has no further one.

        Raises:
            SweepError: The algorithm failed.
        """
        if self._grid is not None:
            return self._of_grid(number)
        try:
            seed = proposal_seed(self._seed, number)
            with _quiet():
                documents = self._suggest([number], self._space.domain, _trials(known, self._space.labels), seed)
        except Exception as error:
            raise SweepError(
                f"The algorithm {self.name} failed to propose trial {number}: {reason(error)}. "
                "Choose another `algorithm`, or correct the space."
            ) from error
        return point_of(documents[0]["misc"]["vals"])

    def _of_grid(self, number: int) -> Point | None:
        if number < self._grid_next:
            self._grid, self._grid_next = self._space.grid(), 0
        point = next(itertools.islice(self._grid, number - self._grid_next, None), None)
        self._grid_next = number + 1
        return point


def proposal_seed(seed: int, number: int) -> int:
    """Return the seed of one proposal, which differs from one trial to the next."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0] >> 1)


def _suggest_function(name: str) -> Callable[..., Any] | None:
    if name == "atpe":
        return _adaptive_tpe()
    return {"tpe": tpe.suggest, "random": rand.suggest, "anneal": anneal.suggest, "grid": None}[name]


def _adaptive_tpe() -> Callable[..., Any]:
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


def _give_bounds_by_position(domain: Any) -> None:
    """Let a space read `uniform(0, 1)` for `uniform(low=0, high=1)`, which `hp.uniformint` says: atpe needs it."""
    for node in dfs(domain.expr):
        if node.name == "hyperopt_param" and node.pos_args[1].named_args:
            distribution = node.pos_args[1]
            distribution.pos_args += [value for _, value in sorted(distribution.named_args, key=_place_of_bound)]
            distribution.named_args = []


def _place_of_bound(argument: tuple[str, Any]) -> int:
    return ("low", "mu", "high", "upper", "sigma", "q").index(argument[0])


def shown_results(known: Sequence[Known]) -> list[Known]:
    """Choose the results that hyperopt is shown: the better ones and the newest, in their order."""
    if len(known) <= MOST_SHOWN:
        return list(known)
    most_best = int(_SHARE_OF_BEST * MOST_SHOWN)
    best = sorted(range(len(known)), key=lambda place: (known[place].loss, place))[:most_best]
    newest = [place for place in range(len(known) - 1, -1, -1) if place not in set(best)]
    return [known[place] for place in sorted([*best, *newest[: MOST_SHOWN - most_best]])]


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
