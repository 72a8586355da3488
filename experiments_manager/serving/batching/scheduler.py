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
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from experiments_manager.protocol.status import Code, ServingError, invalid_argument
from experiments_manager.serving.batching.batch import (
    Batch,
    BatchingOptions,
    Call,
    Outputs,
    Queue,
    Task,
    answer,
    as_serving_error,
    follow,
    run_batch,
)
from experiments_manager.serving.batching.request_queue import PendingRequest, RequestQueue
from experiments_manager.serving.batching.splitting import run_in_parts
from experiments_manager.serving.models.signatures import Model, Signature

__all__ = ["BatchingOptions", "Call", "Scheduler"]

PROBE_EVERY = 16
"""One in so many calls on the loop goes the long way nevertheless, to see whether other requests are on their way."""
SHORT_SECONDS = 3e-3
"""Calls as short as this run beside the others, and their end is waited for before new requests are looked at."""
MAX_QUEUES = 256
"""Combinations of signature, outputs and shapes for which a model keeps a queue."""


class Scheduler:
    """Runs models in threads of its own. Belongs to the event loop in which it is made.

    Args:
        options: How to batch; `None` runs each request by itself.
        threads: Calls that run at the same time where requests are not batched; so many short ones run besides.
        on_batch: Called on the loop after each batch with the model's name, its size, and each request's seconds in the
            queue and size.
        on_run: Called on the loop after each call with the model's name, the signature, and the seconds it took.
    """

    def __init__(
        self,
        options: BatchingOptions | None = None,
        *,
        threads: int | None = None,
        on_batch: Callable[[str, int, Sequence[float], Sequence[int]], None] | None = None,
        on_run: Callable[[str, Signature, float], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._options = options
        self._on_batch, self._on_run = on_batch, on_run
        self._queues: weakref.WeakKeyDictionary[Model, dict[Any, Queue]] = weakref.WeakKeyDictionary()
        self._request_queue = RequestQueue(
            self._admit,
            lambda: sum(len(found.waiting) for found in self._ready),
            most=options.max_batch_size if options else 1,
            wait_for_calls=options is not None and not options.batch_timeout_micros,
        )
        self._ready: dict[Queue, None] = {}
        """Queues from which something may be sent, in the order in which that came about."""
        self._batch_seconds: dict[tuple[str, str], float] = {}
        """What a call took of late, by model and signature: a new version is taken to be as quick as the one before."""
        self._parts: set[asyncio.Task[None]] = set()
        self._limit = options.num_batch_threads if options else threads or max(4, os.cpu_count() or 1)
        self._jobs: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._short_jobs: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        """Short calls have threads of their own: a quick model must not stand behind a slow one."""
        self._threads = [
            threading.Thread(target=self._work, args=(jobs,), name=f"model-{number}", daemon=True)
            for jobs in (self._jobs, self._short_jobs)
            for number in range(self._limit)
        ]
        for thread in self._threads:
            thread.start()

    async def run(
        self, call: Callable[[], Call], reply: Callable[[Outputs], Any] | None = None, *, alone: bool = False
    ) -> Any:
        """Run a request, alone or with others.

        Args:
            call: Gives what to run, when it is the request's turn: to read many requests in a row is several times as
                quick as to read each when it arrives, in between of other things.
            reply: Makes what is returned of the outputs, which may be views into those of a whole batch; called for
                many in a row. Without it the outputs are returned.
            alone: Whether the server has no other request at this moment.

        Raises:
            ServingError: INVALID_ARGUMENT for too many samples; RESOURCE_EXHAUSTED where too many requests wait; else
                what `call`, the model or `reply` answered.
        """
        future = self._loop.create_future()
        if not alone:
            self._request_queue.add(PendingRequest(call, reply, future, time.perf_counter()))
            return await future
        found, task = self._task(call(), reply, future, time.perf_counter())
        quick = found.is_quick(task)
        if quick and self._may_run_here(found, task):
            return self._run_here(found, task)
        self._enqueue(found, task)
        if quick and found.merges:
            self._request_queue.begin()
        else:
            self._send_ready()
        return await future

    async def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function that may wait without end, in a thread of its own, lest nothing else get one."""
        thread = ThreadPoolExecutor(1, "waiting")
        try:
            return await self._loop.run_in_executor(thread, function, *arguments)
        finally:
            thread.shutdown(wait=False)

    def close(self) -> None:
        """End the threads, after what they are running."""
        for jobs in (self._jobs, self._short_jobs):
            for _ in range(self._limit):
                jobs.put(None)
        for thread in self._threads:
            thread.join()

    # Arrivals

    def _admit(self, arrived: list[PendingRequest]) -> None:
        """Read requests and put them into their queues."""
        for arrival in arrived:
            if arrival.future.done():  # the client gave up
                continue
            try:
                self._enqueue(*self._task(arrival.call(), arrival.reply, arrival.future, arrival.seconds))
            except BaseException as error:  # of whatever kind: the others must have their answers
                arrival.future.set_exception(as_serving_error(error))
        self._send_ready()

    def _task(
        self, call: Call, reply: Callable[[Outputs], Any] | None, future: asyncio.Future[Any], arrived: float
    ) -> tuple[Queue, Task]:
        samples = call.signature.count_samples(call.inputs) if self._options else None
        found = self._queue(call, merges=samples is not None)
        return found, Task(call.inputs, samples if found.merges else 1, future, arrived, reply)

    # Queues

    def _queue(self, call: Call, *, merges: bool) -> Queue:
        """Find the queue of those that a request may share a batch with, or of those that run alone."""
        key: Any = (call.signature.name, call.outputs, merges)
        if merges:
            shapes = [call.inputs[name].shape[1:] for name in call.signature.inputs]
            key = (*key, *(map(len, shapes) if self._options.pad_variable_length_inputs else shapes))
        queues = self._queues.get(call.model)
        if queues is None:
            queues = self._queues[call.model] = {}
        found = queues.get(key)
        if found is None:
            if len(queues) >= MAX_QUEUES:
                for idle in [key for key, found in queues.items() if not found.running and not found.waiting]:
                    del queues[idle]
            found = queues[key] = Queue(weakref.ref(call.model), call.signature, call.outputs, call.name, merges)
            found.batch_seconds = self._batch_seconds.get((call.name, call.signature.name), found.batch_seconds)
        return found

    def _enqueue(self, found: Queue, task: Task) -> None:
        if self._too_many(found, task):
            self._split(found, task)
            return
        self._refuse_if_full(found, task.samples)
        found.waiting.append(task)
        found.samples += task.samples
        self._ready[found] = None

    def _too_many(self, found: Queue, task: Task) -> bool:
        return found.merges and task.samples > self._options.max_batch_size

    def _refuse_if_full(self, found: Queue, samples: int) -> None:
        """Raise RESOURCE_EXHAUSTED where as many batches wait as may wait.

        A request that runs alone counts as one sample: it leaves no emptier batch behind for others.
        """
        if self._options is None:
            return
        batches = self._options.max_enqueued_batches + self._limit - found.running  # some leave at once
        if found.samples + samples > batches * self._options.max_batch_size:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"The batch scheduling queue to which this task was submitted is full; currently "
                f"{len(found.waiting)} requests for {found.name} are enqueued and max_enqueued_batches is "
                f"{self._options.max_enqueued_batches}",
            )

    def _send_ready(self) -> None:
        ready, self._ready = self._ready, {}
        for found in ready:
            self._send(found)

    def _send(self, found: Queue) -> None:
        """Send off what is due: anything if the model is idle, else full batches and those that waited long enough."""
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
        found.expected = follow(found.expected, len(tasks))
        batch = Batch(found, model, tasks, samples)
        found.running += 1
        here = found.merges and len(tasks) == 1 and found.expected == 1 and found.is_quick(tasks[0])
        short = found.batch_seconds < SHORT_SECONDS
        batch.short = short and found.merges
        self._request_queue.note_sent(len(tasks), short=batch.short)
        if here:
            run_batch(batch, self._options)
            self._finish(batch)
        else:
            (self._short_jobs if short else self._jobs).put(batch)

    # Calls

    def _may_run_here(self, found: Queue, task: Task) -> bool:
        """Return whether a request goes straight to a quick model that nobody else wants, as far as one can see.

        While the loop runs a call it reads no other request, so now and then it has to look whether there are some.
        """
        if found.running or found.waiting or found.expected > 1 or self._too_many(found, task):
            return False
        found.calls_here += 1
        return found.calls_here % PROBE_EVERY != 0

    def _run_here(self, found: Queue, task: Task) -> Any:
        """Run a quick model on the loop: handing the call to a thread and back would take longer than the call."""
        batch = Batch(found, found.model(), [task], task.samples)
        run_batch(batch, self._options)
        self._note(batch)
        [result] = batch.results
        if isinstance(result, BaseException):
            raise result
        return task.reply(result) if task.reply else result

    def _work(self, jobs: queue.SimpleQueue[Batch | None]) -> None:
        while True:
            batch = jobs.get()
            if batch is None:
                return
            run_batch(batch, self._options)
            try:
                self._loop.call_soon_threadsafe(self._finish, batch)
            except RuntimeError:  # the loop was closed, nobody waits any more
                return
            del batch

    def _finish(self, batch: Batch) -> None:
        """Hand out the results of a batch, all in one turn of the loop."""
        found = batch.queue
        found.running -= 1
        for task, result in zip(batch.tasks, batch.results, strict=True):
            if not task.future.done():
                answer(task, result)
        self._note(batch)
        if found.waiting:
            self._ready[found] = None
        self._request_queue.note_answered(short=batch.short)
        if found.waiting and found.merges:
            self._request_queue.begin()
        elif found.waiting:
            self._send_ready()

    def _note(self, batch: Batch) -> None:
        found = batch.queue
        found.batch_seconds = min(batch.seconds, 0.9 * found.batch_seconds + 0.1 * batch.seconds)
        self._batch_seconds[found.name, found.signature.name] = found.batch_seconds
        if len(batch.tasks) == 1:
            found.note_seconds(batch.tasks[0], batch.seconds)
        if self._on_run is not None:
            self._on_run(found.name, found.signature, batch.seconds)
        if self._on_batch is not None and found.merges:
            waits = [max(0.0, batch.started - task.arrived) for task in batch.tasks]
            self._on_batch(found.name, batch.samples, waits, [task.samples for task in batch.tasks])

    # Requests that are larger than a batch

    def _split(self, found: Queue, task: Task) -> None:
        most = self._options.max_batch_size
        if not self._options.split_large_batches:
            raise invalid_argument(f"Task size {task.samples} is larger than maximum input batch size {most}")
        call = Call(found.name, found.model(), found.signature, task.inputs, found.outputs)
        running = self._loop.create_task(self._run_in_parts(call, task))
        self._parts.add(running)  # the loop itself holds no task
        running.add_done_callback(self._parts.discard)
        task.future.add_done_callback(lambda _: running.cancel())  # the client gave up

    async def _run_in_parts(self, call: Call, task: Task) -> None:
        try:
            result: Outputs | BaseException = await run_in_parts(
                call, self._options.max_batch_size, self._limit, self.run
            )
        except Exception as error:
            result = as_serving_error(error)
        if not task.future.done():
            answer(task, result)
