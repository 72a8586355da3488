"""Running requests on models, several of them at once where they fit together.

A request that finds its model idle is run at once, alone: there is no waiting for company. While the model is busy, those
that arrive gather, and leave together as soon as it is free (or the batch is full and a thread is free, or
`batch_timeout_micros` have passed and a thread is free). So one client sees no more than the time of a call, and many
clients share calls, without anything to tune.

Everything but the calls themselves happens on the event loop, so there are no locks here.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments_manager.serving.errors import Code, ServingError, invalid_argument
from experiments_manager.serving.signatures import Arrays, Model, Signature

logger = logging.getLogger(__name__)

Outputs = dict[str, np.ndarray]

INLINE_SECONDS = 1e-3
"""Calls quicker than this run on the event loop while the server has no other request."""
PROBE_EVERY = 16
"""One in so many of these calls goes the long way nevertheless, to see whether other requests are on their way."""
QUIET_TURNS = 8
"""Turns of the event loop without a new request after which a batch leaves."""
ENOUGH_TURNS = 2
"""The same where as many requests are there as came together the last time."""
MAX_QUEUES = 256
"""Combinations of signature, outputs and shapes for which a model keeps a queue."""


@dataclasses.dataclass(frozen=True)
class BatchingOptions:
    """TensorFlow Serving's batching parameters.

    Attributes:
        max_batch_size: Most samples in a batch; a request with more is refused, unless `split_large_batches`.
        batch_timeout_micros: Longest time, in microseconds, that a request waits for company while the model is busy and
            a thread is free; 0 lets it wait until the model is free. A model that is idle is never waited for.
        max_enqueued_batches: Batches that may wait, for each model and signature; beyond, RESOURCE_EXHAUSTED.
        num_batch_threads: Batches that run at the same time.
        allowed_batch_sizes: Batches are filled up to the next of these, by repeating a sample; the last one must be
            `max_batch_size`. Empty for any size.
        pad_variable_length_inputs: Puts samples of different shapes into one batch, padded with zeros at the end of each
            dimension; else only samples of one shape share a batch.
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
        """Reads a `BatchingParameters` message; fields that are not set keep their defaults.

        Raises:
            ServingError: INVALID_ARGUMENT for values that make no sense together.
        """
        given: dict[str, Any] = {}
        for name in ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"):
            if parameters.HasField(name):
                given[name] = getattr(parameters, name).value
        if parameters.HasField("enable_large_batch_splitting"):
            given["split_large_batches"] = parameters.enable_large_batch_splitting.value
        if parameters.HasField("max_execution_batch_size") and given.get("split_large_batches"):
            given["max_batch_size"] = parameters.max_execution_batch_size.value
        options = cls(
            **given,
            allowed_batch_sizes=tuple(parameters.allowed_batch_sizes),
            pad_variable_length_inputs=parameters.pad_variable_length_inputs,
        )
        options.check()
        return options

    def check(self) -> None:
        """Raises a `ServingError` (INVALID_ARGUMENT) where a value makes no sense."""
        for name in ("max_batch_size", "max_enqueued_batches", "num_batch_threads"):
            if getattr(self, name) < 1:
                raise invalid_argument(f"{name} must be positive; was {getattr(self, name)}")
        if self.batch_timeout_micros < 0:
            raise invalid_argument(f"batch_timeout_micros must be non-negative; was {self.batch_timeout_micros}")
        sizes = self.allowed_batch_sizes
        if any(size <= 0 or size <= before for before, size in zip((0, *sizes), sizes, strict=False)):
            raise invalid_argument(f"allowed_batch_sizes entries must be monotonically increasing; were {list(sizes)}")
        if sizes and sizes[-1] != self.max_batch_size:
            raise invalid_argument(
                f"Last entry in allowed_batch_sizes must match max_batch_size; last entry was {sizes[-1]}; "
                f"expected {self.max_batch_size}"
            )

    def padded(self, samples: int) -> int:
        """Number of samples that a batch is filled up to."""
        return next((size for size in self.allowed_batch_sizes if size >= samples), samples)


@dataclasses.dataclass(eq=False)
class _Task:
    """One request that waits for its outputs."""

    inputs: Arrays
    samples: int
    future: asyncio.Future[Outputs]
    arrived: float


@dataclasses.dataclass(eq=False)
class _Queue:
    """Requests for the same outputs of the same signature of the same model, in the order of their arrival."""

    model: weakref.ref[Model]
    signature: Signature
    outputs: tuple[str, ...]
    name: str
    merges: bool
    """Whether requests may share a batch."""
    waiting: collections.deque[_Task] = dataclasses.field(default_factory=collections.deque)
    samples: int = 0
    running: int = 0
    seconds: float = float("inf")
    """What a call with a single request took of late."""
    expected: float = 1.0
    """Requests that come together, judged by the batches of late."""
    calls_here: int = 0
    gathering: bool = False
    timer: asyncio.TimerHandle | None = None


@dataclasses.dataclass
class _Batch:
    """Requests that are run together, and what came of it."""

    queue: _Queue
    model: Model
    tasks: list[_Task]
    samples: int
    started: float = 0.0
    seconds: float = 0.0
    results: list[Outputs | BaseException] = dataclasses.field(default_factory=list)


class Scheduler:
    """Runs models in threads of its own. Belongs to the event loop in which it is made.

    Args:
        options: How to batch; `None` runs each request by itself.
        threads: Calls that run at the same time where requests are not batched.
        on_batch: Called on the loop after each batch with the model's name, its size, and each request's seconds in the
            queue and size.
        on_run: Called on the loop after each call with the model's name, the seconds it took, and the model's `runtime`.
    """

    def __init__(
        self,
        options: BatchingOptions | None = None,
        *,
        threads: int | None = None,
        on_batch: Callable[[str, int, Sequence[float], Sequence[int]], None] | None = None,
        on_run: Callable[[str, float, str], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._options = options
        self._on_batch, self._on_run = on_batch, on_run
        self._queues: weakref.WeakKeyDictionary[Model, dict[Any, _Queue]] = weakref.WeakKeyDictionary()
        self._limit = options.num_batch_threads if options else threads or max(4, os.cpu_count() or 1)
        self._jobs: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"model-{number}", daemon=True) for number in range(self._limit)
        ]
        for thread in self._threads:
            thread.start()

    async def run(
        self,
        name: str,
        model: Model,
        signature: Signature,
        inputs: Arrays,
        outputs: tuple[str, ...],
        *,
        alone: bool = False,
    ) -> Outputs:
        """Runs a request, alone or with others.

        Args:
            name: Name of the model, for the metrics.
            model: What to run; the caller holds its lease until this returns.
            signature: One of its signatures.
            inputs: Checked inputs.
            outputs: Names of the outputs to compute.
            alone: Whether the server has no other request at this moment.

        Returns:
            The outputs; they may be views into those of a whole batch.

        Raises:
            ServingError: INVALID_ARGUMENT for inputs that do not count the same samples or are too many;
                RESOURCE_EXHAUSTED where too many requests wait; else what the model answered.
        """
        found = self._queue(name, model, signature, inputs, outputs)
        samples = _count_samples(inputs) if found.merges else 1
        if found.merges and samples > self._options.max_batch_size:
            return await self._run_in_parts(name, model, signature, inputs, outputs, samples)
        if alone and self._may_run_here(found):
            return self._run_here(found, model, inputs, samples)
        self._refuse_if_full(found, samples)
        task = _Task(inputs, samples, self._loop.create_future(), time.perf_counter())
        found.waiting.append(task)
        found.samples += samples
        if not found.merges or (alone and found.seconds >= INLINE_SECONDS):
            self._send(found)
        else:
            self._begin_to_gather(found)
        return await task.future

    async def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a function that takes long, in a thread that no model needs."""
        return await self._loop.run_in_executor(None, function, *arguments)

    def close(self) -> None:
        """Ends the threads, after what they are running."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    # Queues

    def _queue(self, name: str, model: Model, signature: Signature, inputs: Arrays, outputs: tuple[str, ...]) -> _Queue:
        key: Any = (signature.name, outputs)
        merges = self._options is not None and signature.batchable
        if merges and not self._options.pad_variable_length_inputs:
            key = (*key, *[array.shape[1:] for array in inputs.values()])
        queues = self._queues.get(model)
        if queues is None:
            queues = self._queues[model] = {}
        found = queues.get(key)
        if found is None:
            if len(queues) >= MAX_QUEUES:
                for idle in [key for key, found in queues.items() if not found.running and not found.waiting]:
                    del queues[idle]
            found = queues[key] = _Queue(weakref.ref(model), signature, outputs, name, merges)
        return found

    def _refuse_if_full(self, found: _Queue, samples: int) -> None:
        """Raises RESOURCE_EXHAUSTED where as many batches wait as may wait."""
        if self._options is None:
            return
        most = self._options.max_enqueued_batches * (self._options.max_batch_size if found.merges else 1)
        if found.samples + samples > most and found.running >= self._limit:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"The batch scheduling queue to which this task was submitted is full: {len(found.waiting)} requests "
                f"wait for {found.name}; max_enqueued_batches is {self._options.max_enqueued_batches}",
            )

    def _begin_to_gather(self, found: _Queue) -> None:
        if not found.gathering:
            found.gathering = True
            self._loop.call_soon(self._gather, found, 0, len(found.waiting))

    def _gather(self, found: _Queue, quiet: int, before: int) -> None:
        """Lets requests come along that have arrived already, but were not read yet: some turns of the loop."""
        count = len(found.waiting)
        quiet = quiet + 1 if count == before else 0
        turns = ENOUGH_TURNS if count >= found.expected > 1 else QUIET_TURNS
        if count and quiet < turns and found.samples < self._options.max_batch_size:
            self._loop.call_soon(self._gather, found, quiet, count)
            return
        found.gathering = False
        self._send(found)

    def _send(self, found: _Queue) -> None:
        """Sends off what is due: anything if the model is idle, else full batches and those that waited long enough."""
        model = found.model()
        while found.waiting and found.running < self._limit:
            if found.running and found.merges and not self._due(found):
                break
            self._dispatch(found, model)
        timeout = self._options.batch_timeout_micros / 1e6 if self._options else 0
        if timeout and found.waiting and found.running < self._limit and found.timer is None:
            wait = found.waiting[0].arrived + timeout - time.perf_counter()
            found.timer = self._loop.call_later(max(wait, 0), self._timeout, found)

    def _due(self, found: _Queue) -> bool:
        if found.samples >= self._options.max_batch_size:
            return True
        timeout = self._options.batch_timeout_micros / 1e6
        return bool(timeout) and time.perf_counter() - found.waiting[0].arrived >= timeout

    def _timeout(self, found: _Queue) -> None:
        found.timer = None
        self._send(found)

    def _dispatch(self, found: _Queue, model: Model) -> None:
        tasks: list[_Task] = []
        samples = 0
        limit = self._options.max_batch_size if found.merges else 0
        while found.waiting and (not tasks or samples + found.waiting[0].samples <= limit):
            task = found.waiting.popleft()
            found.samples -= task.samples
            if task.future.done():  # the client gave up
                continue
            tasks.append(task)
            samples += task.samples
        if not tasks:
            return
        found.expected = max(len(tasks), 0.75 * found.expected)
        if found.expected < 2:
            found.expected = 1.0
        batch = _Batch(found, model, tasks, samples)
        found.running += 1
        if found.merges and len(tasks) == 1 and found.expected == 1 and found.seconds < INLINE_SECONDS:
            _run_batch(batch, self._options)
            self._finish(batch)
        else:
            self._jobs.put(batch)

    # Calls

    def _may_run_here(self, found: _Queue) -> bool:
        """Whether a request goes straight to a quick model that nobody else wants, as far as one can see.

        While the loop runs a call it reads no other request, so now and then it has to look whether there are some.
        """
        if found.running or found.waiting or found.expected > 1 or found.seconds >= INLINE_SECONDS:
            return False
        found.calls_here += 1
        return found.calls_here % PROBE_EVERY != 0

    def _run_here(self, found: _Queue, model: Model, inputs: Arrays, samples: int) -> Outputs:
        """Runs a quick model right on the loop: handing the call to a thread and back would take longer than the call."""
        started = time.perf_counter()
        batch = _Batch(found, model, [_Task(inputs, samples, None, started)], samples)
        _run_batch(batch, self._options)
        self._note(batch)
        [result] = batch.results
        if isinstance(result, BaseException):
            raise result
        return result

    def _work(self) -> None:
        while True:
            batch = self._jobs.get()
            if batch is None:
                return
            _run_batch(batch, self._options)
            try:
                self._loop.call_soon_threadsafe(self._finish, batch)
            except RuntimeError:  # the loop was closed, nobody waits any more
                return
            del batch

    def _finish(self, batch: _Batch) -> None:
        """Hands out the results of a batch, all in one turn of the loop."""
        found = batch.queue
        found.running -= 1
        for task, result in zip(batch.tasks, batch.results, strict=True):
            if task.future.done():
                continue
            if isinstance(result, BaseException):
                task.future.set_exception(result)
            else:
                task.future.set_result(result)
        self._note(batch)
        if found.waiting:
            if found.merges:
                self._begin_to_gather(found)
            else:
                self._send(found)

    def _note(self, batch: _Batch) -> None:
        found = batch.queue
        if len(batch.tasks) == 1:
            # It follows slowly upwards, so that a call which the system interrupted does not count for much.
            before = found.seconds if found.seconds < float("inf") else batch.seconds
            weight = 0.05 if batch.seconds > before else 0.3
            found.seconds = before + weight * (min(batch.seconds, 10 * before) - before)
        if self._on_run is not None:
            self._on_run(found.name, batch.seconds, batch.model.runtime)
        if self._on_batch is not None and found.merges:
            waits = [max(0.0, batch.started - task.arrived) for task in batch.tasks]
            self._on_batch(found.name, batch.samples, waits, [task.samples for task in batch.tasks])

    async def _run_in_parts(
        self, name: str, model: Model, signature: Signature, inputs: Arrays, outputs: tuple[str, ...], samples: int
    ) -> Outputs:
        most = self._options.max_batch_size
        if not self._options.split_large_batches:
            raise invalid_argument(f"Task size {samples} is larger than maximum input batch size {most}")
        parts = [
            self.run(name, model, signature, {key: array[at : at + most] for key, array in inputs.items()}, outputs)
            for at in range(0, samples, most)
        ]
        results = await asyncio.gather(*parts)
        return {key: np.concatenate([result[key] for result in results]) for key in outputs}


def _count_samples(inputs: Arrays) -> int:
    counts = {array.shape[0] if array.ndim else None for array in inputs.values()}
    if None in counts:
        raise invalid_argument("Batching Run() input tensors must have at least one dimension.")
    if len(counts) > 1:
        raise invalid_argument("Batching Run() input tensors must have equal 0th-dimension size.")
    return counts.pop()


def _run_batch(batch: _Batch, options: BatchingOptions | None) -> None:
    """Runs a batch and notes each request's outputs or error; never raises."""
    batch.started = time.perf_counter()
    found = batch.queue
    try:
        if len(batch.tasks) == 1 and not (options and found.merges and options.allowed_batch_sizes):
            batch.results = [_call(batch, batch.tasks[0].inputs)]
        else:
            batch.results = _run_merged(batch, options)
    except BaseException as error:
        if len(batch.tasks) == 1:
            batch.results = [_as_serving_error(error)]
        else:  # one bad request must not spoil the others
            batch.results = [_run_single(batch, task, options) for task in batch.tasks]
    batch.seconds = time.perf_counter() - batch.started


def _run_single(batch: _Batch, task: _Task, options: BatchingOptions | None) -> Outputs | BaseException:
    single = _Batch(batch.queue, batch.model, [task], task.samples)
    _run_batch(single, options)
    return single.results[0]


def _run_merged(batch: _Batch, options: BatchingOptions) -> list[Outputs | BaseException]:
    found, tasks = batch.queue, batch.tasks
    total = options.padded(batch.samples)
    inputs = {
        name: _merge([task.inputs[name] for task in tasks], total - batch.samples) for name in found.signature.inputs
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


def _call(batch: _Batch, inputs: Arrays) -> Outputs:
    return batch.model.run(batch.queue.signature, inputs, batch.queue.outputs)


def _merge(arrays: list[np.ndarray], fill: int) -> np.ndarray:
    """Puts arrays on top of each other, padded to one shape, and repeats the last row `fill` times."""
    if len({array.shape[1:] for array in arrays}) > 1:
        largest = np.max([array.shape[1:] for array in arrays], axis=0)
        arrays = [_pad(array, largest) for array in arrays]
    if fill:
        arrays = [*arrays, np.repeat(arrays[-1][-1:], fill, axis=0)]
    return np.concatenate(arrays)


def _pad(array: np.ndarray, shape: np.ndarray) -> np.ndarray:
    widths = [(0, 0), *((0, int(size - own)) for size, own in zip(shape, array.shape[1:], strict=True))]
    return np.pad(array, widths, constant_values=b"" if array.dtype == object else 0)


def _as_serving_error(error: BaseException) -> ServingError:
    if isinstance(error, ServingError):
        return error
    logger.error("a model failed in an unexpected way", exc_info=error)
    return ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}")
