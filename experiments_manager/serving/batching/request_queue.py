"""Which requests are looked at together.

To read many requests in a row is several times as quick as to read each when it arrives, in between of other things,
and those that were read together can share a call of the model. So requests that come while others are there are left
alone for a moment: until no more seem to be on their way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from experiments_manager.serving.batching.batch import Call, Outputs, follow

QUIET_SECONDS, QUIET_TURNS = 300e-6, 16
"""Time, and turns of the event loop, without a new request after which those that are there are looked at."""
ENOUGH_SECONDS, ENOUGH_TURNS = 100e-6, 8
"""The same where as many are there as came together of late."""
PATIENCE_SECONDS = 10e-3
"""Longest time to wait for the end of a call that should be short."""
LONGEST_SECONDS = 50e-3
"""Longest time to wait for further requests, where they keep coming one by one."""


class PendingRequest(NamedTuple):
    """A request that nobody has looked at yet.

    Attributes:
        call: Reads it.
        reply: Makes its answer of the outputs; `None` where these are the answer.
        future: Gets the answer.
        seconds: When it came, by `time.perf_counter`.
    """

    call: Callable[[], Call]
    reply: Callable[[Outputs], Any] | None
    future: asyncio.Future[Any]
    seconds: float


class RequestQueue:
    """Collects arrivals and hands them over together. Belongs to the event loop in which it is made.

    Args:
        hand_over: Takes what has arrived.
        read_before: Counts the requests that were read before and will leave together with those to come.
        most: So many are handed over at once; 1 hands over whatever is there at the next turn of the loop.
        wait_for_calls: Whether requests wait for the end of a call that is known to be short.
    """

    def __init__(
        self,
        hand_over: Callable[[list[PendingRequest]], None],
        read_before: Callable[[], int],
        *,
        most: int,
        wait_for_calls: bool,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._hand_over, self._read_before = hand_over, read_before
        self._most, self._wait_for_calls = most, wait_for_calls
        self._arrived: list[PendingRequest] = []
        self._begun = False
        self._short_calls = 0
        self._patience: asyncio.TimerHandle | None = None
        self._expected = 1.0

    def add(self, arrival: PendingRequest) -> None:
        """Take a request that has arrived."""
        self._arrived.append(arrival)
        if self._begun:
            return
        if self._wait_for_calls and self._short_calls and len(self._arrived) < self._most:
            if self._patience is None:
                self._patience = self._loop.call_later(PATIENCE_SECONDS, self.begin)
            return
        self.begin()

    def begin(self) -> None:
        """Look at what is there, and at what comes along within the next moment."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if not self._begun:
            self._begun = True
            now = time.perf_counter()
            self._loop.call_soon(self._gather, self._count(), now, 0, now + LONGEST_SECONDS)

    def note_sent(self, count: int, *, short: bool) -> None:
        """Note that so many requests have left together; `short` if new ones should wait for the end of their call."""
        self._expected = follow(self._expected, count)
        self._short_calls += short

    def note_answered(self, *, short: bool) -> None:
        """Note that a call has ended."""
        self._short_calls -= short
        if self._arrived:
            self.begin()

    def _count(self) -> int:
        return len(self._arrived) + self._read_before()

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
        self._begun = False
        arrived, self._arrived = self._arrived, []
        self._hand_over(arrived)
