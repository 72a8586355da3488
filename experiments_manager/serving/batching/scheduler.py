"""Running requests on models, several of them at once where they fit together.

A request that finds its model idle is run at once, alone: there is no waiting for company. While the model is busy,
those that arrive gather, and leave together as soon as it is free (or the batch is full and a thread is free, or
`batch_timeout_micros` have passed and a thread is free). So one client sees no more than the time of a call, and many
clients share calls, without anything to tune.

Everything but the calls themselves happens on the event loop, so there are no locks here.
"""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from experiments_manager.protocol.status import Code, ServingError, invalid_argument
from experiments_manager.serving.batching.batch import Batch, BatchQueue, Task, run_batch
from experiments_manager.serving.batching.dispatcher import Dispatcher
from experiments_manager.serving.batching.options import BatchingOptions, Proof
from experiments_manager.serving.batching.row_prover import RowProver
from experiments_manager.serving.models.registry import Lease
from experiments_manager.serving.models.signatures import Arrays, Model, PredictRequest, Signature

__all__ = ["BatchingOptions", "Scheduler"]

PROBE_EVERY = 16
"""One in so many calls on the loop goes the long way nevertheless, to see whether other requests are on their way."""
MAX_QUEUES = 256
"""Combinations of signature, outputs and shapes for which a model keeps a queue."""


class Arrival(NamedTuple):
    """A request's turn to be read and run; see `Scheduler.turn`.

    Attributes:
        alone: Whether the server had no other request when it came.
        arrived: When that was, by `time.perf_counter`.
    """

    alone: bool
    arrived: float


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

    async def turn(self, alone: bool) -> Arrival:
        """Wait for a request's turn: to read many in a row is several times as quick as to read each when it arrives.

        Args:
            alone: Whether the server has no other request at this moment, so that there is nothing to wait for.
        """
        turn = Arrival(alone, time.perf_counter())
        if not alone:
            await self._dispatcher.turns.wait()
        return turn

    async def predict(self, lease: Lease, request: PredictRequest, turn: Arrival) -> Arrays:
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

    async def _run_in_parts(self, lease: Lease, request: PredictRequest, samples: int, turn: Arrival) -> Arrays:
        most = self._options.max_batch_size
        if not self._options.split_large_batches:
            raise invalid_argument(f"Task size {samples} is larger than maximum input batch size {most}")
        turn = turn._replace(alone=False)
        return await run_in_parts(request, most, self._limit, lambda part: self.predict(lease, part, turn))


async def run_in_parts(
    request: PredictRequest, most: int, at_once: int, run: Callable[[PredictRequest], Awaitable[Arrays]]
) -> Arrays:
    """Run a request in parts.

    Args:
        request: The request; its signature counts its samples.
        most: Most samples of a part.
        at_once: Parts that are on their way at the same time: a request must not fill the queue by itself.
        run: Runs a part.

    Raises:
        ServingError: FAILED_PRECONDITION where the outputs are not by sample, or differ in size; else what a part
            answered.
    """
    parts = [
        request._replace(inputs={name: array[at : at + most] for name, array in request.inputs.items()})
        for at in range(0, request.signature.count_samples(request.inputs), most)
    ]
    places = asyncio.Semaphore(at_once)

    async def answer(part: PredictRequest) -> Arrays:
        async with places:
            return await run(part)

    # All are waited for, whatever one answers: with the request's own answer the model's lease ends.
    return _joined(parts, await asyncio.gather(*map(answer, parts), return_exceptions=True))


def _joined(parts: Sequence[PredictRequest], answers: Sequence[Arrays | BaseException]) -> Arrays:
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    counts = [part.signature.count_samples(part.inputs) for part in parts]
    joined = {}
    for name in answers[0]:
        arrays = [answer[name] for answer in answers]
        if [array.shape for array in arrays] != [(count, *arrays[0].shape[1:]) for count in counts]:
            raise ServingError(
                Code.FAILED_PRECONDITION,
                f"Output {name} of a request that was split has the shapes {[list(array.shape) for array in arrays]} "
                f"for {counts} samples, which cannot be put together",
            )
        joined[name] = np.concatenate(arrays)
    return joined
