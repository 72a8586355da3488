"""Which requests get their turn together.

To read many requests in a row is several times as quick as to read each when it arrives, in between of other things,
and those that were read together can share a call of the model. So requests that come while others are there wait for a
moment: until no more seem to be on their way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

QUIET_SECONDS, QUIET_TURNS = 300e-6, 16
"""Time, and turns of the event loop, without a new request after which those that are there are looked at."""
ENOUGH_SECONDS, ENOUGH_TURNS = 100e-6, 8
"""The same where as many are there as came together of late."""
PATIENCE_SECONDS = 10e-3
"""Longest time to wait for the end of a call that should be short."""
LONGEST_SECONDS = 50e-3
"""Longest time to wait for further requests, where they keep coming one by one."""


class RequestQueue:
    """Gives requests their turns together. Belongs to the event loop in which it is made.

    Args:
        on_turn: Called when requests that were waiting have got their turn, and will go on in this turn of the loop.
        read_before: Counts the requests that were read before and will leave together with those to come.
        most: So many get their turn at once; 1 lets go whatever is there at the next turn of the loop.
        wait_for_calls: Whether requests wait for the end of a call that is known to be short.
    """

    def __init__(
        self,
        on_turn: Callable[[], None],
        read_before: Callable[[], int],
        *,
        most: int,
        wait_for_calls: bool,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_turn, self._read_before = on_turn, read_before
        self._most, self._wait_for_calls = most, wait_for_calls
        self._waiting: list[asyncio.Future[None]] = []
        self._begun = False
        """Whether requests are being gathered, or have their turn."""
        self._in_turn = False
        self._short_calls = 0
        self._patience: asyncio.TimerHandle | None = None
        self._expected = 1.0

    def wait(self) -> asyncio.Future[None]:
        """Return what a request that has arrived waits for."""
        turn = self._loop.create_future()
        self._waiting.append(turn)
        self._begin_or_be_patient()
        return turn

    def begin(self) -> None:
        """Give what is there its turn, with what comes along within the next moment."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if not self._begun:
            self._begun = True
            now = time.perf_counter()
            self._loop.call_soon(self._gather, self._count(), now, 0, now + LONGEST_SECONDS)

    def end(self) -> None:
        """Note that the requests that had their turn are read, and sent as far as they may be."""
        if self._in_turn:
            self._in_turn = self._begun = False
            if self._waiting:
                self._begin_or_be_patient()

    def _begin_or_be_patient(self) -> None:
        if self._begun:
            return
        if not (self._wait_for_calls and self._short_calls and len(self._waiting) < self._most):
            self.begin()
        elif self._patience is None:
            self._patience = self._loop.call_later(PATIENCE_SECONDS, self.begin)

    def note_sent(self, count: int, *, short: bool) -> None:
        """Note that so many requests have left together; `short` if new ones should wait for the end of their call."""
        self._expected = follow(self._expected, count)
        self._short_calls += short

    def note_answered(self, *, short: bool) -> None:
        """Note that a call has ended."""
        self._short_calls -= short
        if self._waiting:
            self.begin()

    def _count(self) -> int:
        return len(self._waiting) + self._read_before()

    def _gather(self, before: int, since: float, turns: int, end: float) -> None:
        """Turn the loop until nothing has come for a moment; its timers are coarser than such a moment.

        In one long turn the loop is busy with other things, and what arrives is not seen yet; so turns count as well.
        """
        count, now = self._count(), time.perf_counter()
        if count != before:
            since, turns = now, 0
        enough = count >= self._expected > 1
        seconds, least = (ENOUGH_SECONDS, ENOUGH_TURNS) if enough else (QUIET_SECONDS, QUIET_TURNS)
        quiet = now - since >= seconds and turns >= least
        if not quiet and now < end and 0 < count < self._most:
            self._loop.call_soon(self._gather, count, since, turns + 1, end)
            return
        self._in_turn = True
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            if not turn.done():  # else the client gave up
                turn.set_result(None)
        self._on_turn()


def follow(expected: float, count: int) -> float:
    """Follow how many requests come together: upwards at once, and slowly down to one."""
    expected = max(count, 0.75 * expected)
    return expected if expected >= 2 else 1.0
