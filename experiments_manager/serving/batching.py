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
import queue
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments_manager.serving.batches import Batch, BatchingOptions, Outputs, Queue, Task, count_samples, run_batch
from experiments_manager.serving.errors import Code, ServingError, invalid_argument
from experiments_manager.serving.signatures import Arrays, Model, Signature

__all__ = ["BatchingOptions", "Scheduler"]

PROBE_EVERY = 16
"""One in so many calls on the loop goes the long way nevertheless, to see whether other requests are on their way."""
QUIET_TURNS = 8
"""Turns of the event loop without a new request after which a batch leaves."""
ENOUGH_TURNS = 2
"""The same where as many requests are there as came together the last time."""
MAX_QUEUES = 256
"""Combinations of signature, outputs and shapes for which a model keeps a queue."""


class Scheduler:
    """Runs models in threads of its own. Belongs to the event loop in which it is made.

    Args:
        options: How to batch; `None` runs each request by itself.
        threads: Calls that run at the same time where requests are not batched.
        on_batch: Called on the loop after each batch with the model's name, its size, and each request's seconds in the
            queue and size.
        on_run: Called on the loop after each call with the model's name, the seconds it took, and its `runtime`.
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
        self._queues: weakref.WeakKeyDictionary[Model, dict[Any, Queue]] = weakref.WeakKeyDictionary()
        self._limit = options.num_batch_threads if options else threads or max(4, os.cpu_count() or 1)
        self._jobs: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
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
        samples = count_samples(inputs) if found.merges else 1
        if found.merges and samples > self._options.max_batch_size:
            return await self._run_in_parts(name, model, signature, inputs, outputs, samples)
        task = Task(inputs, samples, None, time.perf_counter())
        quick = alone and found.is_quick(task)
        if quick and self._may_run_here(found):
            return self._run_here(found, model, task)
        self._refuse_if_full(found, samples)
        task.future = self._loop.create_future()
        found.waiting.append(task)
        found.samples += samples
        if not found.merges or (alone and not quick):
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

    def _queue(self, name: str, model: Model, signature: Signature, inputs: Arrays, outputs: tuple[str, ...]) -> Queue:
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
            found = queues[key] = Queue(weakref.ref(model), signature, outputs, name, merges)
        return found

    def _refuse_if_full(self, found: Queue, samples: int) -> None:
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

    def _begin_to_gather(self, found: Queue) -> None:
        if not found.gathering:
            found.gathering = True
            self._loop.call_soon(self._gather, found, 0, len(found.waiting))

    def _gather(self, found: Queue, quiet: int, before: int) -> None:
        """Lets requests come along that have arrived already, but were not read yet: some turns of the loop."""
        count = len(found.waiting)
        quiet = quiet + 1 if count == before else 0
        turns = ENOUGH_TURNS if count >= found.expected > 1 else QUIET_TURNS
        if count and quiet < turns and found.samples < self._options.max_batch_size:
            self._loop.call_soon(self._gather, found, quiet, count)
            return
        found.gathering = False
        self._send(found)

    def _send(self, found: Queue) -> None:
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

    def _due(self, found: Queue) -> bool:
        if found.samples >= self._options.max_batch_size:
            return True
        timeout = self._options.batch_timeout_micros / 1e6
        return bool(timeout) and time.perf_counter() - found.waiting[0].arrived >= timeout

    def _timeout(self, found: Queue) -> None:
        found.timer = None
        self._send(found)

    def _dispatch(self, found: Queue, model: Model) -> None:
        tasks: list[Task] = []
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
        batch = Batch(found, model, tasks, samples)
        found.running += 1
        if found.merges and len(tasks) == 1 and found.expected == 1 and found.is_quick(tasks[0]):
            run_batch(batch, self._options)
            self._finish(batch)
        else:
            self._jobs.put(batch)

    # Calls

    def _may_run_here(self, found: Queue) -> bool:
        """Whether a request goes straight to a quick model that nobody else wants, as far as one can see.

        While the loop runs a call it reads no other request, so now and then it has to look whether there are some.
        """
        if found.running or found.waiting or found.expected > 1:
            return False
        found.calls_here += 1
        return found.calls_here % PROBE_EVERY != 0

    def _run_here(self, found: Queue, model: Model, task: Task) -> Outputs:
        """Runs a quick model on the loop: handing the call to a thread and back would take longer than the call."""
        batch = Batch(found, model, [task], task.samples)
        run_batch(batch, self._options)
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
            run_batch(batch, self._options)
            try:
                self._loop.call_soon_threadsafe(self._finish, batch)
            except RuntimeError:  # the loop was closed, nobody waits any more
                return
            del batch

    def _finish(self, batch: Batch) -> None:
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

    def _note(self, batch: Batch) -> None:
        found = batch.queue
        if len(batch.tasks) == 1:
            found.note_seconds(batch.tasks[0], batch.seconds)
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
