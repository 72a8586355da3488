"""How a stream goes: rate, latencies, and the version that answers."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import sys
import time
from collections.abc import Callable
from typing import TextIO

from experiments_manager.common.display.progress import ProgressDisplay

WINDOW = 2000
"""Newest answers that the progress line looks at."""
_KEPT = 1_000_000  # latencies for the summary; of longer streams, the newest
LINE_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Summary:
    """How a stream went.

    Attributes:
        answers: How many requests were answered.
        seconds: From the first request to the last answer.
        rate: Answers a second.
        p50, p99: Latencies in milliseconds, by the newest answers; `None` where there are none.
        versions: How many answers each version gave.
        retries: How many requests were sent again.
    """

    answers: int
    seconds: float
    rate: float
    p50: float | None
    p99: float | None
    versions: dict[int, int]
    retries: int

    def __str__(self) -> str:
        parts = [f"{self.answers:,} answer{'s' * (self.answers != 1)}", f"{self.rate:,.4g}/s"]
        if self.p50 is not None:
            parts.append(f"p50 {self.p50:.3g} ms  p99 {self.p99:.3g} ms")
        parts.append(f"version{'s' * (len(self.versions) > 1)} {', '.join(map(str, self.versions)) or 'none'}")
        if self.retries:
            parts.append(f"{self.retries:,} sent again")
        return "  ".join(parts)


class ProgressLine:
    """A counter of answers, which shows how they come.

    Args:
        stream: Where to show it; `None`: nowhere.
        clock: Tells the time in seconds.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._display = ProgressDisplay(stream, quiet=stream is None, line_seconds=LINE_SECONDS, clock=clock)
        self._clock = clock
        self._latencies: collections.deque[float] = collections.deque(maxlen=_KEPT)
        self._times: collections.deque[float] = collections.deque(maxlen=WINDOW)
        self._answers = 0
        self._versions: dict[int, int] = {}
        self._began = clock()
        self._last = self._began

    def answered(self, version: int, seconds: float, retries: int = 0, answers: int = 1) -> None:
        """Take note of an answer.

        Args:
            version: The version that gave it.
            seconds: How long it took.
            retries: How many requests were sent again so far.
            answers: How many answers came together.
        """
        now = self._last = self._clock()
        self._answers += answers
        self._latencies.extend(itertools.repeat(seconds, answers))
        self._times.extend(itertools.repeat(now, answers))
        self._versions[version] = self._versions.get(version, 0) + answers
        if self._display.is_due():
            self._display.show("", str(self._newest(version, retries)), bar=False)

    def summary(self, retries: int = 0) -> Summary:
        """Look back on the whole stream."""
        seconds = self._last - self._began
        rate = self._answers / seconds if seconds > 0 else 0.0
        return Summary(self._answers, seconds, rate, *_percentiles(self._latencies), dict(self._versions), retries)

    def close(self) -> None:
        """Leave the terminal's line."""
        self._display.close()

    def _newest(self, version: int, retries: int) -> Summary:
        latencies = list(self._latencies)[-WINDOW:] if len(self._latencies) <= WINDOW else _tail(self._latencies)
        span = self._times[-1] - self._times[0]
        rate = (len(self._times) - 1) / span if span > 0 else 0.0
        return Summary(self._answers, span, rate, *_percentiles(latencies), {version: self._answers}, retries)


def _tail(values: collections.deque[float]) -> list[float]:
    return [values[index] for index in range(-WINDOW, 0)]  # indexing near the end of a deque is fast


def _percentiles(seconds: collections.abc.Collection[float]) -> tuple[float | None, float | None]:
    """50th and 99th percentile in milliseconds, by nearest rank."""
    if not seconds:
        return None, None
    ordered = sorted(seconds)
    return tuple(1e3 * ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.99))


def terminal_line(*, quiet: bool = False) -> ProgressLine:
    """Return the progress line on standard error."""
    return ProgressLine(None if quiet else sys.stderr)
