"""Which requests get their turn together; sending batches to threads that run them, and handing out what comes back.

To read many requests in a row is several times as quick as to read each when it arrives, in between of other things,
and those that were read together can share a call of the model. So requests that come while others are there wait for a
moment: until no more seem to be on their way.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from experiments_manager.protocol.status import Code, ServingError
from experiments_manager.serving.batching.batch import Batch, BatchQueue, Task, run_batch
from experiments_manager.serving.batching.options import BatchingOptions

QUIET_SECONDS, QUIET_TURNS = 300e-6, 16
"""Time, and turns of the event loop, without a new request after which those that are there are looked at."""
ENOUGH_SECONDS, ENOUGH_TURNS = 100e-6, 8
"""The same where as many are there as came together of late."""
PATIENCE_SECONDS = 10e-3
"""Longest time to wait for the end of a call that should be short."""
LONGEST_SECONDS = 50e-3
"""Longest time to wait for further requests, where they keep coming one by one."""


class RequestQueue:
    """Gives requests their turns together. Belongs to the event loop in which it is made.

    Args:
        on_turn: Called when requests that were waiting have got their turn, and will go on in this turn of the loop.
        read_before: Counts the requests that were read before and will leave together with those to come.
        most: So many get their turn at once; 1 lets go whatever is there at the next turn of the loop.
        wait_for_calls: Whether requests wait for the end of a call that is known to be short.
    """

    def __init__(
        self,
        on_turn: Callable[[], None],
        read_before: Callable[[], int],
        *,
        most: int,
        wait_for_calls: bool,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_turn, self._read_before = on_turn, read_before
        self._most, self._wait_for_calls = most, wait_for_calls
        self._waiting: list[asyncio.Future[None]] = []
        self._begun = False
        """Whether requests are being gathered, or have their turn."""
        self._in_turn = False
        self._short_calls = 0
        self._patience: asyncio.TimerHandle | None = None
        self._expected = 1.0

    def wait(self) -> asyncio.Future[None]:
        """Return what a request that has arrived waits for."""
        turn = self._loop.create_future()
        self._waiting.append(turn)
        self._begin_or_be_patient()
        return turn

    def begin(self) -> None:
        """Give what is there its turn, with what comes along within the next moment."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if not self._begun:
            self._begun = True
            now = time.perf_counter()
            self._loop.call_soon(self._gather, self._count(), now, 0, now + LONGEST_SECONDS)

    def end(self) -> None:
        """Note that the requests that had their turn are read, and sent as far as they may be."""
        if self._in_turn:
            self._in_turn = self._begun = False
            if self._waiting:
                self._begin_or_be_patient()

    def _begin_or_be_patient(self) -> None:
        if self._begun:
            return
        if not (self._wait_for_calls and self._short_calls and len(self._waiting) < self._most):
            self.begin()
        elif self._patience is None:
            self._patience = self._loop.call_later(PATIENCE_SECONDS, self.begin)

    def note_sent(self, count: int, *, short: bool) -> None:
        """Note that so many requests have left together; `short` if new ones should wait for the end of their call."""
        self._expected = follow(self._expected, count)
        self._short_calls += short

    def note_answered(self, *, short: bool) -> None:
        """Note that a call has ended."""
        self._short_calls -= short
        if self._waiting:
            self.begin()

    def _count(self) -> int:
        return len(self._waiting) + self._read_before()

    def _gather(self, before: int, since: float, turns: int, end: float) -> None:
        """Turn the loop until nothing has come for a moment; its timers are coarser than such a moment.

        In one long turn the loop is busy with other things, and what arrives is not seen yet; so turns count as well.
        """
        count, now = self._count(), time.perf_counter()
        if count != before:
            since, turns = now, 0
        enough = count >= self._expected > 1
        seconds, least = (ENOUGH_SECONDS, ENOUGH_TURNS) if enough else (QUIET_SECONDS, QUIET_TURNS)
        quiet = now - since >= seconds and turns >= least
        if not quiet and now < end and 0 < count < self._most:
            self._loop.call_soon(self._gather, count, since, turns + 1, end)
            return
        self._in_turn = True
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            if not turn.done():  # else the client gave up
                turn.set_result(None)
        self._on_turn()


def follow(expected: float, count: int) -> float:
    """Follow how many requests come together: upwards at once, and slowly down to one."""
    expected = max(count, 0.75 * expected)
    return expected if expected >= 2 else 1.0


SHORT_SECONDS = 3e-3
"""Calls as short as this run beside the others, and their end is waited for before new requests get their turn."""


class Dispatcher:
    """Runs what waits in batch queues. Belongs to the event loop in which it is made.

    Args:
        options: How to batch; `None` runs each request by itself.
        threads: Calls that run at the same time; so many short ones run besides.
        on_batch: Called on the loop after each batch, with (queue, tasks, samples, begin, seconds).

    Attributes:
        turns: Where requests wait for their turn to be read.
    """

    def __init__(
        self,
        options: BatchingOptions | None,
        threads: int,
        on_batch: Callable[[BatchQueue, list[Task], int, float, float], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._options, self._limit, self._on_batch = options, threads, on_batch
        self._ready: dict[BatchQueue, None] = {}
        """Queues from which something may be sent, in the order in which that came about."""
        self._sending = False
        self.turns = RequestQueue(
            self._send_soon,
            lambda: sum(len(queue.waiting) for queue in self._ready),
            most=options.max_batch_size if options else 1,
            wait_for_calls=options is not None and not options.batch_timeout_micros,
        )
        self._jobs: SimpleQueue[Batch | None] = SimpleQueue()
        self._short_jobs: SimpleQueue[Batch | None] = SimpleQueue()
        """Short calls have threads of their own: a quick model must not stand behind a slow one."""
        self._threads = [
            threading.Thread(target=self._work, args=(jobs,), name=f"model-{number}", daemon=True)
            for jobs in (self._jobs, self._short_jobs)
            for number in range(self._limit)
        ]
        for thread in self._threads:
            thread.start()

    def add(self, queue: BatchQueue, task: Task, *, gather: bool) -> None:
        """Put a request into its queue, from which it is sent together with those that have their turn at once.

        Args:
            queue: The queue.
            task: The request.
            gather: Whether to look first whether others are on their way.

        Raises:
            ServingError: RESOURCE_EXHAUSTED where as many batches wait as may wait.
        """
        self._refuse_if_full(queue, task.samples)
        queue.waiting.append(task)
        queue.samples += task.samples
        self._ready[queue] = None
        if gather:
            self.turns.begin()
        else:
            self._send_soon()

    def close(self) -> None:
        """End the threads, after what they are running."""
        for jobs in (self._jobs, self._short_jobs):
            for _ in range(self._limit):
                jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _refuse_if_full(self, queue: BatchQueue, samples: int) -> None:
        """Raise RESOURCE_EXHAUSTED where a queue is full.

        A request that runs alone counts as one sample: it leaves no emptier batch behind for others.
        """
        if self._options is None:
            return
        batches = self._options.max_enqueued_batches + self._limit - queue.running  # some leave at once
        if queue.samples + samples > batches * self._options.max_batch_size:
            raise ServingError(
                Code.RESOURCE_EXHAUSTED,
                f"The batch scheduling queue to which this task was submitted is full; currently "
                f"{len(queue.waiting)} requests for {queue.name} are enqueued and max_enqueued_batches is "
                f"{self._options.max_enqueued_batches}",
            )

    def _send_soon(self) -> None:
        """Send when all that got their turn together are in their queues, which is in this turn of the loop."""
        if not self._sending:
            self._sending = True
            self._loop.call_soon(self._send_ready)

    def _send_ready(self) -> None:
        self._sending = False
        ready, self._ready = self._ready, {}
        try:
            for queue in ready:
                self._send(queue)
        finally:
            self.turns.end()

    def _send(self, queue: BatchQueue) -> None:
        """Send off what is due: anything if the model is idle, else full batches and those that waited long enough."""
        while queue.waiting and queue.running < self._limit:
            if queue.running and queue.merges and not self._due(queue):
                break
            self._dispatch(queue)
        timeout = self._options.batch_timeout_micros / 1e6 if self._options else 0
        if timeout and queue.waiting and queue.running < self._limit and queue.timer is None:
            wait = queue.waiting[0].arrived + timeout - time.perf_counter()
            queue.timer = self._loop.call_later(max(wait, 0), self._timeout, queue)

    def _due(self, queue: BatchQueue) -> bool:
        if queue.samples >= queue.most(self._options):
            return True
        timeout = self._options.batch_timeout_micros / 1e6
        return bool(timeout) and time.perf_counter() - queue.waiting[0].arrived >= timeout

    def _timeout(self, queue: BatchQueue) -> None:
        queue.timer = None
        self._send(queue)

    def _dispatch(self, queue: BatchQueue) -> None:
        tasks: list[Task] = []
        samples = 0
        limit = queue.most(self._options) if queue.merges else 0
        while queue.waiting and (not tasks or samples + queue.waiting[0].samples <= limit):
            task = queue.waiting.popleft()
            queue.samples -= task.samples
            if task.future.done():  # the client gave up
                continue
            tasks.append(task)
            samples += task.samples
        if not tasks:
            return
        queue.expected = follow(queue.expected, len(tasks))
        batch = Batch(queue, queue.model(), tasks, samples)
        queue.running += 1
        here = queue.merges and len(tasks) == 1 and queue.expected == 1 and queue.is_quick(tasks[0])
        short = queue.batch_seconds < SHORT_SECONDS
        batch.short = short and queue.merges
        self.turns.note_sent(len(tasks), short=batch.short)
        if here:
            run_batch(batch, self._options)
            self._finish(batch)
        else:
            (self._short_jobs if short else self._jobs).put(batch)

    def _work(self, jobs: SimpleQueue[Batch | None]) -> None:
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
        """Hand out the results of a batch, so that all answers are written in one turn of the loop."""
        queue = batch.queue
        queue.running -= 1
        for task, result in zip(batch.tasks, batch.results, strict=True):
            if task.future.done():  # the client gave up
                continue
            if isinstance(result, BaseException):
                task.future.set_exception(result)
            else:
                task.future.set_result(result)
        self._on_batch(queue, batch.tasks, batch.samples, batch.started, batch.seconds)
        if queue.waiting:
            self._ready[queue] = None
        self.turns.note_answered(short=batch.short)
        if queue.waiting and queue.merges:
            self.turns.begin()
        elif queue.waiting:
            self._send_soon()
