"""Batches: putting requests together, running them, and taking the outputs apart again."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

import numpy as np

from experiments_manager.protocol.status import Code, ServingError, as_serving_error
from experiments_manager.serving.batching.options import BatchingOptions
from experiments_manager.serving.models.signatures import Arrays, Model

if TYPE_CHECKING:
    from experiments_manager.serving.batching.scheduler import BatchQueue, Task


@dataclasses.dataclass
class Batch:
    """Requests that are run together, and what came of it."""

    queue: BatchQueue
    model: Model
    tasks: list[Task]
    samples: int
    short: bool = False
    """Whether it is expected to take so little time that others wait for its end."""
    started: float = 0.0
    seconds: float = 0.0
    results: list[Arrays | BaseException] = dataclasses.field(default_factory=list)


def run_batch(batch: Batch, options: BatchingOptions | None) -> None:
    """Run a batch and note each request's outputs or error; never raise."""
    batch.started = time.perf_counter()
    queue = batch.queue
    try:
        if len(batch.tasks) == 1 and not (options and queue.merges and options.allowed_batch_sizes):
            batch.results = [_call(batch, batch.tasks[0].inputs)]
        else:
            batch.results = _run_merged(batch, options)
    except BaseException as error:
        if len(batch.tasks) == 1:
            batch.results = [as_serving_error(error)]
        else:  # one bad request must not spoil the others
            batch.results = [_run_single(batch, task, options) for task in batch.tasks]
    batch.seconds = time.perf_counter() - batch.started


def _run_single(batch: Batch, task: Task, options: BatchingOptions | None) -> Arrays | BaseException:
    single = Batch(batch.queue, batch.model, [task], task.samples)
    run_batch(single, options)
    return single.results[0]


def _run_merged(batch: Batch, options: BatchingOptions) -> list[Arrays | BaseException]:
    queue, tasks = batch.queue, batch.tasks
    total = queue.padded(batch.samples, options) if batch.samples else 0  # there is nothing that could be repeated
    inputs = {
        name: merge([task.inputs[name] for task in tasks], total - batch.samples) for name in queue.signature.inputs
    }
    outputs = _call(batch, inputs)
    batch.samples = total
    for name, array in outputs.items():
        if array.ndim == 0 or array.shape[0] != total:
            if len(tasks) > 1:
                queue.merges = False  # its outputs are not by sample: from now on each request runs by itself
                return [_run_single(batch, task, None) for task in tasks]
            raise ServingError(
                Code.FAILED_PRECONDITION,
                f"Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
                f"tensors: {name} has shape {list(array.shape)} for {total} samples",
            )
    results: list[Arrays | BaseException] = []
    at = 0
    for task in tasks:
        results.append({name: array[at : at + task.samples] for name, array in outputs.items()})
        at += task.samples
    return results


def _call(batch: Batch, inputs: Arrays) -> Arrays:
    return batch.model.run(batch.queue.signature, inputs, batch.queue.outputs)


def merge(arrays: list[np.ndarray], fill: int) -> np.ndarray:
    """Put arrays on top of each other, padded to one shape, and repeat the last row `fill` times."""
    if len({array.shape[1:] for array in arrays}) > 1:
        largest = np.max([array.shape[1:] for array in arrays], axis=0)
        arrays = [_pad(array, largest) for array in arrays]
    if fill:
        last = next(array for array in reversed(arrays) if len(array))
        arrays = [*arrays, np.repeat(last[-1:], fill, axis=0)]
    return np.concatenate(arrays)


def _pad(array: np.ndarray, shape: np.ndarray) -> np.ndarray:
    padded = np.empty((len(array), *shape), array.dtype)
    nothing = b"" if array.dtype == object else 0
    padded.fill(array.flat[0] if array.size else nothing)
    padded[tuple(map(slice, array.shape))] = array
    return padded
