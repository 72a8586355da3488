"""Evaluating a whole split by the compiled loop."""

from __future__ import annotations

from collections.abc import Callable

from experiments_manager.training.errors import DataError
from experiments_manager.training.feed import Feed
from experiments_manager.training.pace import Pace
from experiments_manager.training.steps import CompiledLoop, as_numbers


def run_test_steps(
    loop: CompiledLoop, feed: Feed, epoch: int, pace: Pace, between_calls: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Evaluates a whole split; the metrics must have been reset.

    Args:
        loop: Over `test_one`.
        feed: The split.
        epoch: Which validation this is, for pipelines that are built again.
        pace: How many steps a call makes.
        between_calls: Called before each call of the compiled loop.

    Returns:
        Loss and metrics.

    Raises:
        DataError: If the split gives no batch.
    """
    source, step, logs = feed.open(epoch), 0, {}
    while feed.steps is None or step < feed.steps:
        between_calls()
        last = step + pace.steps(None)
        first, last = step, last if feed.steps is None else min(last, feed.steps)
        with pace.measured(last - first):
            steps = loop(source, first, last)
        step = steps.done
        feed.took(step - first)
        logs = steps.logs if step > first else logs
        if steps.exhausted:
            break
    feed.close_epoch()
    if step == 0:
        raise DataError(
            f"dataset: the {feed.split} split gave no batch. Expected at least one. Look at what `dataset` returns."
        )
    return as_numbers(logs)
