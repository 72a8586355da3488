"""Batches: their parameters, putting requests together, running them, and taking the outputs apart again."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import logging
import os
import time
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from experiments_manager.protocol.status import Code, ServingError, invalid_argument
from experiments_manager.serving.models.signatures import Arrays, Model, Signature

logger = logging.getLogger(__name__)

Outputs = dict[str, np.ndarray]

INLINE_SECONDS = 1e-3
"""Calls quicker than this run on the event loop while the server has no other request."""
LONG_SECONDS = 20e-3
"""A single call that takes longer than this shows that its model is not always quick."""


@dataclasses.dataclass(frozen=True)
class BatchingOptions:
    """TensorFlow Serving's batching parameters.

    Attributes:
        max_batch_size: Most samples in a batch; a request with more is refused, unless `split_large_batches`.
        batch_timeout_micros: Longest time, in microseconds, that a request waits for company while the model is busy
            and a thread is free; 0 lets it wait until the model is free. A model that is idle is never waited for.
        max_enqueued_batches: Batches that may wait, for each queue (model, signature, outputs, and shape of the samples
            unless these are padded); beyond, RESOURCE_EXHAUSTED.
        num_batch_threads: Batches that run at the same time; so many of quick models run besides.
        allowed_batch_sizes: Batches are filled up to the next of these, by repeating a sample; the last one must be
            `max_batch_size`. Empty for any size.
        pad_variable_length_inputs: Puts samples of different shapes into one batch, each request's padded at the end of
            each dimension with its first value, as in TensorFlow Serving; else only samples of one shape share a batch.
        split_large_batches: Runs a request of more than `max_batch_size` samples in several batches.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = dataclasses.field(default_factory=lambda: os.cpu_count() or 1)
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    split_large_batches: bool = False

    @classmethod
    def from_proto(cls, parameters: Any) -> BatchingOptions:
        """Read a `BatchingParameters` message; fields that are not set keep their defaults.

        Raises:
            ServingError: INVALID_ARGUMENT for values that make no sense together.
        """
        given: dict[str, Any] = {}
        for name in ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"):
            if parameters.HasField(name):
                given[name] = getattr(parameters, name).value
        if parameters.HasField("enable_large_batch_splitting"):
            given["split_large_batches"] = parameters.enable_large_batch_splitting.value
        largest = given.get("max_batch_size", cls.max_batch_size)
        if parameters.HasField("max_execution_batch_size") and given.get("split_large_batches"):
            given["max_batch_size"] = parameters.max_execution_batch_size.value
        if given.get("max_enqueued_batches") == 0 and not given.get("split_large_batches"):
            given["max_enqueued_batches"] = 1  # as in TensorFlow Serving, for old files
        options = cls(
            **given,
            allowed_batch_sizes=tuple(parameters.allowed_batch_sizes),
            pad_variable_length_inputs=parameters.pad_variable_length_inputs,
        )
        options.check(largest)
        return options

    def check(self, largest: int) -> None:
        """Look whether the values make sense.

        Args:
            largest: Samples of the largest request, which `allowed_batch_sizes` may end with too.

        Raises:
            ServingError: INVALID_ARGUMENT, for one that does not.
        """
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads"):
            if getattr(self, name) < 1:
                raise invalid_argument(f"{name} must be positive; was {getattr(self, name)}")
        if self.batch_timeout_micros < 0:
            raise invalid_argument(f"batch_timeout_micros must be non-negative; was {self.batch_timeout_micros}")
        sizes = self.allowed_batch_sizes
        if any(size <= 0 or size <= before for before, size in zip((0, *sizes), sizes, strict=False)):
            raise invalid_argument(f"allowed_batch_sizes entries must be monotonically increasing; were {list(sizes)}")
        if sizes and sizes[-1] not in (self.max_batch_size, largest):
            raise invalid_argument(
                f"Last entry in allowed_batch_sizes must match max_batch_size; last entry was {sizes[-1]}; "
                f"expected {largest}"
            )

    def padded(self, samples: int) -> int:
        """Return number of samples that a batch is filled up to."""
        return next((size for size in self.allowed_batch_sizes if size >= samples), samples)


class Call(NamedTuple):
    """What a request wants to be run.

    Attributes:
        name: Name of the model, for the metrics.
        model: What to run; whoever asks holds its lease until there is an answer.
        signature: One of its signatures.
        inputs: Checked inputs.
        outputs: Names of the outputs to compute.
    """

    name: str
    model: Model
    signature: Signature
    inputs: Arrays
    outputs: tuple[str, ...]


@dataclasses.dataclass(eq=False)
class Task:
    """One request that waits for its outputs."""

    inputs: Arrays
    samples: int
    future: asyncio.Future[Any] | None
    arrived: float
    """When it came, by `time.perf_counter`."""
    reply: Callable[[Outputs], Any] | None = None
    """Makes what the request gets of its outputs; `None` gives these."""

    @property
    def size(self) -> int:
        """Its size as a power of two of bytes: requests of one size take about the same time."""
        return sum(map(_bytes, self.inputs.values())).bit_length()


@dataclasses.dataclass(eq=False)
class Queue:
    """Requests for the same outputs of the same signature of the same model, in the order of their arrival."""

    model: weakref.ref[Model]
    signature: Signature
    outputs: tuple[str, ...]
    name: str
    merges: bool
    """Whether requests may share a batch."""
    waiting: collections.deque[Task] = dataclasses.field(default_factory=collections.deque)
    samples: int = 0
    running: int = 0
    seconds: dict[int, float] = dataclasses.field(default_factory=dict)
    """What a call with a single request took of late, by its size."""
    expected: float = 1.0
    """Requests that come together, judged by the batches of late; see `follow`."""
    batch_seconds: float = float("inf")
    """What a call took of late."""
    calls_here: int = 0
    timer: asyncio.TimerHandle | None = None

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

    queue: Queue
    model: Model
    tasks: list[Task]
    samples: int
    short: bool = False
    """Whether it is expected to take so little time that others wait for its end."""
    started: float = 0.0
    seconds: float = 0.0
    results: list[Outputs | BaseException] = dataclasses.field(default_factory=list)


def follow(expected: float, count: int) -> float:
    """Follow how many requests come together: upwards at once, and slowly down to one."""
    expected = max(count, 0.75 * expected)
    return expected if expected >= 2 else 1.0


def _bytes(array: np.ndarray) -> int:
    """Return bytes of the values, of strings too, of which the array itself holds no more than where they are."""
    return array.nbytes + (sum(map(len, array.ravel().tolist())) if array.dtype == object else 0)


def run_batch(batch: Batch, options: BatchingOptions | None) -> None:
    """Run a batch and notes each request's outputs or error; never raises."""
    batch.started = time.perf_counter()
    found = batch.queue
    try:
        if len(batch.tasks) == 1 and not (options and found.merges and options.allowed_batch_sizes):
            batch.results = [_call(batch, batch.tasks[0].inputs)]
        else:
            batch.results = _run_merged(batch, options)
    except BaseException as error:
        if len(batch.tasks) == 1:
            batch.results = [as_serving_error(error)]
        else:  # one bad request must not spoil the others
            batch.results = [_run_single(batch, task, options) for task in batch.tasks]
    batch.seconds = time.perf_counter() - batch.started


def _run_single(batch: Batch, task: Task, options: BatchingOptions | None) -> Outputs | BaseException:
    single = Batch(batch.queue, batch.model, [task], task.samples)
    run_batch(single, options)
    return single.results[0]


def _run_merged(batch: Batch, options: BatchingOptions) -> list[Outputs | BaseException]:
    found, tasks = batch.queue, batch.tasks
    total = options.padded(batch.samples) if batch.samples else 0  # there is nothing that could be repeated
    inputs = {
        name: merge([task.inputs[name] for task in tasks], total - batch.samples) for name in found.signature.inputs
    }
    outputs = _call(batch, inputs)
    batch.samples = total
    for name, array in outputs.items():
        if array.ndim == 0 or array.shape[0] != total:
            if len(tasks) > 1:
                found.merges = False  # its outputs are not by sample: from now on each request runs by itself
                return [_run_single(batch, task, None) for task in tasks]
            raise ServingError(
                Code.FAILED_PRECONDITION,
                f"Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
                f"tensors: {name} has shape {list(array.shape)} for {total} samples",
            )
    results: list[Outputs | BaseException] = []
    at = 0
    for task in tasks:
        results.append({name: array[at : at + task.samples] for name, array in outputs.items()})
        at += task.samples
    return results


def _call(batch: Batch, inputs: Arrays) -> Outputs:
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


def answer(task: Task, result: Outputs | BaseException) -> None:
    """Hand a request its outputs, or its error."""
    if isinstance(result, BaseException):
        task.future.set_exception(result)
        return
    try:
        task.future.set_result(task.reply(result) if task.reply else result)
    except BaseException as error:  # of whatever kind: the others of the batch must have their answers
        task.future.set_exception(as_serving_error(error))


def as_serving_error(error: BaseException) -> ServingError:
    """Return what a client is told of an error; one that is not meant for clients is logged, and becomes INTERNAL."""
    if isinstance(error, ServingError):
        return error.without_frames()  # one of them is that of the batch, which keeps its results
    logger.error("a request failed in an unexpected way", exc_info=error)
    return ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}")
