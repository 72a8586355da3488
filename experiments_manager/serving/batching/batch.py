"""Requests that wait in queues, and batches of them: putting together, running, and taking the outputs apart again."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import functools
import time
import weakref

import numpy as np

from experiments_manager.protocol.status import Code, ServingError, as_serving_error
from experiments_manager.serving.batching.options import BatchingOptions
from experiments_manager.serving.models.signatures import Arrays, Model, Signature

INLINE_SECONDS = 1e-3
"""Calls quicker than this run on the event loop while the server has no other request."""
LONG_SECONDS = 20e-3
"""A single call that takes longer than this shows that its model is not always quick."""


@dataclasses.dataclass(eq=False)
class Task:
    """One request that waits for its outputs."""

    inputs: Arrays
    samples: int
    future: asyncio.Future[Arrays] | None
    arrived: float

    @functools.cached_property
    def size(self) -> int:
        """Its size as a power of two of bytes: requests of one size take about the same time."""
        return sum(map(_bytes, self.inputs.values())).bit_length()


@dataclasses.dataclass(eq=False)
class BatchQueue:
    """Requests for the same outputs of the same signature of the same model, in the order of their arrival."""

    model: weakref.ref[Model]
    signature: Signature
    outputs: tuple[str, ...]
    name: str
    merges: bool
    """Whether requests may share a batch."""
    sizes: tuple[int, ...] = ()
    """Sizes of batches that are proved; empty where any size will do."""
    waiting: collections.deque[Task] = dataclasses.field(default_factory=collections.deque)
    samples: int = 0
    running: int = 0
    seconds: dict[int, float] = dataclasses.field(default_factory=dict)
    """What a call with a single request took of late, by its size."""
    expected: float = 1.0
    """Requests that come together, judged by the batches of late; see `dispatcher.follow`."""
    batch_seconds: float = float("inf")
    """What a call took of late."""
    inline_calls: int = 0
    timer: asyncio.TimerHandle | None = None

    def most(self, options: BatchingOptions) -> int:
        """Return how many samples a batch may have."""
        return self.sizes[-1] if self.sizes else options.max_batch_size

    def padded(self, samples: int, options: BatchingOptions) -> int:
        """Return the number of samples that a batch is filled up to."""
        return next((size for size in self.sizes if size >= samples), options.padded(samples))

    def is_quick(self, task: Task) -> bool:
        """Return whether calls of this size are known to be short enough to run on the event loop itself."""
        return self.seconds.get(task.size, float("inf")) < INLINE_SECONDS

    def note_seconds(self, task: Task, seconds: float) -> None:
        """Note what a call took; follow slowly upwards, for a call that the system interrupted means little.

        A call that held up the loop for long counts in full, whatever the reason: the next ones go to a thread.
        """
        before = seconds if seconds > LONG_SECONDS else self.seconds.get(task.size, seconds)
        weight = 0.05 if seconds > before else 0.3
        self.seconds[task.size] = before + weight * (min(seconds, 10 * before) - before)


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


def _bytes(array: np.ndarray) -> int:
    """Return the bytes of the values, of strings too, of which the array itself holds no more than where they are."""
    return array.nbytes + (sum(map(len, array.ravel().tolist())) if array.dtype == object else 0)
