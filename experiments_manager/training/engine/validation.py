"""Evaluating a whole split by the compiled loop."""

from __future__ import annotations

from collections.abc import Callable

import keras

from experiments_manager.training.engine.chunks import ChunkSize
from experiments_manager.training.engine.steps import CompiledLoop
from experiments_manager.training.errors import DataError
from experiments_manager.training.feeds.feed import Feed
from experiments_manager.training.setup.metrics import as_numbers


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
