"""Running requests on models, several of them at once where they fit together.

A request that finds its model idle is run at once, alone: there is no waiting for company. While the model is busy,
those that arrive gather, and leave together as soon as it is free (or the batch is full and a thread is free, or
`batch_timeout_micros` have passed and a thread is free). So one client sees no more than the time of a call, and many
clients share calls, without anything to tune.

Everything but the calls themselves happens on the event loop, so there are no locks here.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import functools
import os
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from experiments_manager.protocol.status import invalid_argument
from experiments_manager.serving.batching.batch import Batch, run_batch
from experiments_manager.serving.batching.dispatcher import Dispatcher
from experiments_manager.serving.batching.options import BatchingOptions, Proof
from experiments_manager.serving.batching.row_prover import RowProver
from experiments_manager.serving.batching.splitting import run_in_parts
from experiments_manager.serving.models.registry import Lease
from experiments_manager.serving.models.signatures import Arrays, Model, PredictRequest, Signature

__all__ = ["BatchingOptions", "Scheduler"]

INLINE_SECONDS = 1e-3
"""Calls quicker than this run on the event loop while the server has no other request."""
LONG_SECONDS = 20e-3
"""A single call that takes longer than this shows that its model is not always quick."""
PROBE_EVERY = 16
"""One in so many calls on the loop goes the long way nevertheless, to see whether other requests are on their way."""
MAX_QUEUES = 256
"""Combinations of signature, outputs and shapes for which a model keeps a queue."""


class Turn(NamedTuple):
    """A request's turn to be read and run; see `Scheduler.turn`.

    Attributes:
        alone: Whether the server had no other request when it came.
        arrived: When that was, by `time.perf_counter`.
    """

    alone: bool
    arrived: float


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
    """Requests that come together, judged by the batches of late; see `request_queue.follow`."""
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


class Scheduler:
    """Runs models in threads of its own. Belongs to the event loop in which it is made.

    Args:
        options: How to batch; `None` runs each request by itself.
        threads: Calls that run at the same time where requests are not batched; so many short ones run besides.
        on_batch: Called on the loop after each batch with the model's name, its size, and each request's seconds in the
            queue and size.
        on_run: Called on the loop after each call with the model's name, the signature's method (`Predict`, …), and the
            seconds it took.
    """

    def __init__(
        self,
        options: BatchingOptions | None = None,
        *,
        threads: int | None = None,
        on_batch: Callable[[str, int, Sequence[float], Sequence[int]], None] | None = None,
        on_run: Callable[[str, str, float], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._options = options
        self._on_batch, self._on_run = on_batch, on_run
        self._queues: weakref.WeakKeyDictionary[Model, dict[Any, BatchQueue]] = weakref.WeakKeyDictionary()
        self._batch_seconds: dict[tuple[str, str], float] = {}
        """What a call took of late, by model and signature: a new version is taken to be as quick as the one before."""
        self._limit = options.num_batch_threads if options else threads or max(4, os.cpu_count() or 1)
        self._dispatcher = Dispatcher(options, self._limit, self._note)
        self._prover = None if options is None or options.proof is Proof.NOT_ASKED else RowProver(options.proof)

    async def turn(self, alone: bool) -> Turn:
        """Wait for a request's turn: to read many in a row is several times as quick as to read each when it arrives.

        Args:
            alone: Whether the server has no other request at this moment, so that there is nothing to wait for.
        """
        turn = Turn(alone, time.perf_counter())
        if not alone:
            await self._dispatcher.turns.wait()
        return turn

    async def predict(self, lease: Lease, request: PredictRequest, turn: Turn) -> Arrays:
        """Check a request against its signature, and run it, alone or with others.

        Args:
            lease: The version, which is leased until there is an answer.
            request: What to compute.
            turn: The request's turn.

        Returns:
            Arrays by output name, which may be views into those of a whole batch.

        Raises:
            ServingError: INVALID_ARGUMENT for wrong inputs or outputs, or too many samples; RESOURCE_EXHAUSTED where
                too many requests wait; else what the model answered.
        """
        signature = request.signature
        inputs = signature.check_inputs(request.inputs)
        outputs = signature.select_outputs(request.output_filter)
        samples = signature.count_samples(inputs) if self._options else None
        sizes: tuple[int, ...] = ()
        if self._prover is not None and samples is not None:
            sizes = self._prover.sizes(lease.model, lease.name, signature, outputs, inputs)
            if not self._options.needs_proof:
                sizes = ()
            elif samples not in sizes:
                samples = None
        queue = self._queue(lease, signature, inputs, outputs, merges=samples is not None)
        queue.sizes = sizes if samples is not None else ()
        if not queue.merges:
            samples = 1
        elif samples > self._options.max_batch_size:
            return await self._run_in_parts(lease, request._replace(inputs=inputs), samples, turn)
        task = Task(inputs, samples, None, turn.arrived)
        quick = turn.alone and queue.is_quick(task)
        if quick and self._may_run_inline(queue):
            return self._run_inline(queue, lease.model, task)
        task.future = self._loop.create_future()
        self._dispatcher.add(queue, task, gather=quick and queue.merges)
        return await task.future

    async def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function that may wait without end, in a thread of its own, lest nothing else get one."""
        thread = ThreadPoolExecutor(1, "waiting")
        try:
            return await self._loop.run_in_executor(thread, function, *arguments)
        finally:
            thread.shutdown(wait=False)

    def close(self) -> None:
        """End the threads, after what they are running."""
        if self._prover is not None:
            self._prover.close()
        self._dispatcher.close()

    def _queue(
        self, lease: Lease, signature: Signature, inputs: Arrays, outputs: tuple[str, ...], *, merges: bool
    ) -> BatchQueue:
        """Find the queue of those that a request may share a batch with, or of those that run alone."""
        key: Any = (signature.name, outputs, merges)
        if merges:
            shapes = [inputs[name].shape[1:] for name in signature.inputs]
            key = (*key, *(map(len, shapes) if self._options.pad_variable_length_inputs else shapes))
        queues = self._queues.get(lease.model)
        if queues is None:
            queues = self._queues[lease.model] = {}
        queue = queues.get(key)
        if queue is None:
            if len(queues) >= MAX_QUEUES:
                for idle in [key for key, queue in queues.items() if not queue.running and not queue.waiting]:
                    del queues[idle]
            queue = queues[key] = BatchQueue(weakref.ref(lease.model), signature, outputs, lease.name, merges)
            queue.batch_seconds = self._batch_seconds.get((lease.name, signature.name), queue.batch_seconds)
        return queue

    def _may_run_inline(self, queue: BatchQueue) -> bool:
        """Return whether a request goes straight to a quick model that nobody else wants, as far as one can see.

        While the loop runs a call it reads no other request, so now and then it has to look whether there are some.
        """
        if queue.running or queue.waiting or queue.expected > 1:
            return False
        queue.inline_calls += 1
        return queue.inline_calls % PROBE_EVERY != 0

    def _run_inline(self, queue: BatchQueue, model: Model, task: Task) -> Arrays:
        """Run a quick model on the loop: handing the call to a thread and back would take longer than the call."""
        if queue.merges and self._options.allowed_batch_sizes:  # it may have to be filled up
            return self._run_batch_here(Batch(queue, model, [task], task.samples))
        started = time.perf_counter()
        try:
            return model.run(queue.signature, task.inputs, queue.outputs)
        finally:
            self._note(queue, [task], task.samples, started, time.perf_counter() - started)

    def _run_batch_here(self, batch: Batch) -> Arrays:
        run_batch(batch, self._options)
        self._note(batch.queue, batch.tasks, batch.samples, batch.started, batch.seconds)
        [outputs] = batch.results
        if isinstance(outputs, BaseException):
            raise outputs
        return outputs

    def _note(self, queue: BatchQueue, tasks: list[Task], samples: int, started: float, seconds: float) -> None:
        queue.batch_seconds = min(seconds, 0.9 * queue.batch_seconds + 0.1 * seconds)
        self._batch_seconds[queue.name, queue.signature.name] = queue.batch_seconds
        if len(tasks) == 1:
            queue.note_seconds(tasks[0], seconds)
        if self._on_run is not None:
            self._on_run(queue.name, queue.signature.api, seconds)
        if self._on_batch is not None and queue.merges:
            waits = [max(0.0, started - task.arrived) for task in tasks]
            self._on_batch(queue.name, samples, waits, [task.samples for task in tasks])

    async def _run_in_parts(self, lease: Lease, request: PredictRequest, samples: int, turn: Turn) -> Arrays:
        most = self._options.max_batch_size
        if not self._options.split_large_batches:
            raise invalid_argument(f"Task size {samples} is larger than maximum input batch size {most}")
        turn = turn._replace(alone=False)
        return await run_in_parts(request, most, self._limit, lambda part: self.predict(lease, part, turn))


def _bytes(array: np.ndarray) -> int:
    """Return the bytes of the values, of strings too, of which the array itself holds no more than where they are."""
    return array.nbytes + (sum(map(len, array.ravel().tolist())) if array.dtype == object else 0)
