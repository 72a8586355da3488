"""Work that must not hold up training, in threads of its own: only the newest job waits, or all do in their order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Job = TypeVar("Job")


class LatestJobWorker(Generic[Job]):
    """Runs `work(job)` in a thread; a job that arrives while another waits takes its place.

    So a slow disk or a slow export makes versions and checkpoints rarer, and never longer in coming.

    Args:
        work: Does one job. An exception is handed to `on_failure` and the next job is taken.
        on_failure: Called in the thread with the job and the exception.
        name: Name of the thread.
    """

    def __init__(
        self, work: Callable[[Job], None], on_failure: Callable[[Job, BaseException], None], *, name: str
    ) -> None:
        self._work, self._on_failure = work, on_failure
        self._waiting: Job | None = None
        self._busy = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Job | None:
        """Hand in a job and return at once, with the waiting job whose place it took, if any."""
        with self._changed:
            if self._closed:
                raise RuntimeError("this worker was closed; make a new one")
            displaced, self._waiting = self._waiting, job
            self._changed.notify_all()
            return displaced

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        with self._changed:
            return not self._busy and self._waiting is None

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs and nothing waits; return whether that came within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy and self._waiting is None, timeout)

    def close(self) -> None:
        """Finish what runs and what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._closed)
                if self._waiting is None:
                    return
                job, self._waiting, self._busy = self._waiting, None, True
            try:
                self._work(job)
            except BaseException as error:
                self._on_failure(job, error)
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()


class OrderedWorker:
    """Does all that is handed in, in that order, in a thread of its own, which starts with the first job.

    Where a disk does not keep up, `most` jobs wait; whoever hands in another then waits, too.

    Args:
        name: Name of the thread.
        most: How many jobs may wait.
    """

    def __init__(self, name: str, most: int = 1000) -> None:
        self._name, self._jobs = name, queue.Queue[Callable[[], None] | None](most)
        self._thread: threading.Thread | None = None
        self.closed = False

    def submit(self, job: Callable[[], None]) -> None:
        """Hand in a job, which must not raise."""
        if self.closed:
            raise RuntimeError("this worker was closed; make a new one")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def wait(self) -> None:
        """Wait until all is done that was handed in before; may be called from any thread but its own."""
        if self._thread is not None and not self.closed:
            done = threading.Event()
            self._jobs.put(done.set)
            done.wait()

    def close(self) -> None:
        """Finish what waits, then end the thread."""
        self.closed = True
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
