"""A chunk: the steps of one call of the compiled loop, as many as take about a twentieth of a second."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras

from experiments_manager.training.engine.steps import ChunkResult, CompiledLoop, CompiledLoops
from experiments_manager.training.engine.user_callbacks import UserCallbacks
from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds.feed import Feed
from experiments_manager.training.observe.step_statistics import StepStatistics
from experiments_manager.training.setup.metrics import as_numbers

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
        self.seconds = 0.0
        """Seconds that the last call took."""

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
        self._calls, self.seconds = self._calls + 1, time.perf_counter() - started
        if self._calls == 1:  # it was compiled in this one
            return
        fitting = int(steps * self._target / max(self.seconds, 1e-6))
        self._steps = max(1, min(fitting, self._steps * _LARGEST_GROWTH))


def train_chunk(
    loops: CompiledLoops,
    feed: Feed,
    callbacks: UserCallbacks | None,
    chunk_size: ChunkSize,
    source: Any,
    first: int,
    last: int,
    statistics: StepStatistics | tuple[()] = (),
) -> ChunkResult:
    """Train the steps from `first` to before `last`; the first alone where callbacks look at single batches.

    Args:
        loops: The compiled loops.
        feed: The training data, which takes note of the steps.
        callbacks: Who is told of batches, if anybody.
        chunk_size: Measures the call.
        source: What the feed opened.
        first: Number of the first step in the epoch.
        last: Number of the step after the last one.
        statistics: What is added up on the way.
    """
    tells_batches = bool(callbacks) and callbacks.want_batches
    if tells_batches:
        last = first + 1
        callbacks.list.on_train_batch_begin(first)
    with chunk_size.measured(last - first):
        chunk = loops.train(feed.current(source), first, last, statistics)
    feed.took(chunk.done - first)
    if tells_batches and chunk.finite and chunk.done > first:
        callbacks.list.on_train_batch_end(first, as_numbers(chunk.logs))
    return chunk


def source_after(feed: Feed, source: Any, first: int, chunk: ChunkResult) -> tuple[Any, bool]:
    """Return the source of the steps after a chunk, and whether the epoch ends with it.

    Data that ends before the epoch does begins again where it goes on from pass to pass.

    Raises:
        DataError: A whole pass had no batch.
    """
    if not (chunk.exhausted and feed.goes_on and chunk.done < feed.steps):
        return source, chunk.exhausted
    if chunk.done == first and feed.position()["taken"] == 0:
        raise DataError(
            f"dataset: the {feed.split} pipeline gives no batch. Expected at least one. Check what `dataset` returns."
        )
    return feed.next_pass(), False


def run_test_steps(
    loop: CompiledLoop,
    feed: Feed,
    epoch: int,
    chunk_size: ChunkSize,
    after_chunk: Callable[[], None] = lambda: None,
    batch_callbacks: keras.callbacks.CallbackList | None = None,
) -> dict[str, float]:
    """Evaluate a whole split; the metrics must have been reset.

    Args:
        loop: From `CompiledLoop.for_evaluation`.
        feed: The split.
        epoch: Which validation this is, for pipelines that are built again.
        chunk_size: How many steps a call makes.
        after_chunk: Called before each call of the compiled loop.
        batch_callbacks: Told of each batch, which then makes a call of its own.

    Returns:
        Loss and metrics.

    Raises:
        DataError: If the split gives no batch.
    """
    source, step, logs = feed.open(epoch), 0, {}
    try:
        while feed.steps is None or step < feed.steps:
            after_chunk()
            wanted = chunk_size.steps(None)
            while (ready := feed.ready(wanted)) == 0:
                after_chunk()
            first, last = step, step + ready if feed.steps is None else min(step + ready, feed.steps)
            if batch_callbacks is not None:
                last = first + 1
                batch_callbacks.on_test_batch_begin(first)
            with chunk_size.measured(last - first):
                steps = loop(feed.current(source), first, last)
            if batch_callbacks is not None and steps.done > first:
                batch_callbacks.on_test_batch_end(first, as_numbers(steps.logs))
            step = steps.done
            feed.took(step - first)
            logs = steps.logs if step > first else logs
            if steps.exhausted:
                break
    finally:
        feed.close_epoch()  # also of one that was interrupted: it begins again
    if step == 0:
        raise DataError(
            f"dataset: the {feed.split} split gave no batch. Expected at least one. Check what `dataset` returns."
        )
    return as_numbers(logs)
