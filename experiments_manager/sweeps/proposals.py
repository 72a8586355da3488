"""The next point to try: first those that the user gave, then what the algorithm proposes from the results so far."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from experiments_manager.sweeps.search.algorithms import Algorithm
from experiments_manager.sweeps.search.history import History
from experiments_manager.sweeps.search.spaces import Point, Space
from experiments_manager.sweeps.state.trials import SweepState, plain_overrides


class Proposals:
    """Makes proposals.

    Args:
        algorithm: A name or a suggest function.
        space: The search space.
        seed: Of the sweep.
        modes: Of the objectives.
        points: To try before all others, values by name.
        whole: Names whose values are whole numbers.
    """

    def __init__(
        self,
        algorithm: str | Callable[..., Any],
        space: Space,
        seed: int,
        *,
        modes: tuple[str, ...],
        points: Sequence[Point] = (),
        whole: Collection[str] = (),
    ) -> None:
        self._algorithm = Algorithm(algorithm, space, seed)
        self._space, self._points, self._whole = space, list(points), set(whole)
        self._history = History(space, modes, seed)

    @property
    def algorithm(self) -> str:
        """The name of the algorithm."""
        return self._algorithm.name

    def next(self, state: SweepState, number: int) -> dict[str, Any] | None:
        """Propose the point of a trial.

        Args:
            state: What is known.
            number: The trial's number.

        Returns:
            `point`, `overrides`, `space` and `by`; `None` where a grid has no further point.

        Raises:
            SweepError: The algorithm failed.
        """
        given = self._next_given(state)
        if given is not None:
            return self._proposal(given, "start_from")
        position = self._points_of_grid(state) if self._algorithm.name == "grid" else number
        point = self._algorithm.propose(position, self._history.known(state, number), self._history.pending(state))
        return None if point is None else self._proposal(point, self._algorithm.name)

    def _points_of_grid(self, state: SweepState) -> int:
        """Return how many points of the grid were proposed."""
        digest = self._space.digest
        return sum(trial.by == self._algorithm.name and trial.space == digest for trial in state.trials.values())

    def _next_given(self, state: SweepState) -> Point | None:
        """Return the first of the user's points that was not tried yet."""
        if not self._points:
            return None
        tried = [trial.overrides for trial in state.trials.values() if trial.by == "start_from"]
        return next((point for point in self._points if self._overrides(point) not in tried), None)

    def _overrides(self, point: Point) -> dict[str, Any]:
        return plain_overrides(self._space.overrides(point), self._whole)

    def _proposal(self, point: Point, by: str) -> dict[str, Any]:
        return {"point": point, "overrides": self._overrides(point), "space": self._space.digest, "by": by}
