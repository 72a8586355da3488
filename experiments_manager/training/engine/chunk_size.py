"""How many steps a call of the compiled loop makes: as many as take about a twentieth of a second."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

SECONDS_A_CALL = 0.05
"""Long enough that Python costs nothing, short enough that a signal is seen at once."""
_LARGEST_GROWTH = 8


class ChunkSize:
    """Adapt the number of steps a call to the time that calls take; results never depend on it.

    Args:
        seconds_a_call: The time wanted.
        agree: Given the number that suits this process, returns the one that all processes of a training take.
    """

    def __init__(
        self, seconds_a_call: float = SECONDS_A_CALL, agree: Callable[[int], int] = lambda steps: steps
    ) -> None:
        self._target, self._agree = seconds_a_call, agree
        self._steps = 1
        self._calls = 0

    def steps(self, at_most: int | None) -> int:
        """Return the number of steps for the next call.

        Args:
            at_most: Steps to a place that calls must not run past; they are dealt out evenly among so many calls as
                come nearest to the time wanted, since a short rest would cost a call too.
        """
        steps = self._agree(self._steps)
        if at_most is None:
            return steps
        calls = max(1, round(at_most / steps))
        return -(-at_most // calls)

    @contextlib.contextmanager
    def measured(self, steps: int) -> Iterator[None]:
        """Time a call of so many steps."""
        started = time.perf_counter()
        yield
        self._calls += 1
        if self._calls == 1:  # it was compiled in this one
            return
        seconds = max(time.perf_counter() - started, 1e-6)
        fitting = int(steps * self._target / seconds)
        self._steps = max(1, min(fitting, self._steps * _LARGEST_GROWTH))
