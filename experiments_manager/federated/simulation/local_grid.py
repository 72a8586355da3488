"""A grid whose nodes are threads of this process: a federation without any network."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import logging
import threading
from collections.abc import Callable, Iterable

from flwr.app import Error, Message, Metadata

from experiments_manager.compat.flower import identify_process
from experiments_manager.federated.errors import client_problem
from experiments_manager.federated.server.exchange import BaseGrid

logger = logging.getLogger(__name__)

Client = Callable[[Message], Message]
"""Answers one message; it is called by one thread at a time."""

_FIRST_NODE = 1000
CLIENT_FAILED = 2
"""Code of an error reply; Flower's own for a client that raised."""


@dataclasses.dataclass(eq=False)
class _Job:
    message: Message
    client: Client
    node_id: int
    abandoned: bool = False


class LocalGrid(BaseGrid):
    """Clients of this process, some of them at a time, each in a thread.

    A client that did not answer in time is left behind: its thread ends when it ends, its answer is dropped, and it is
    no node of the grid until then. Threads left behind do not count as workers.

    Args:
        make_client: Makes the client of a number, when it is first asked, in the thread that sends.
        proc_ids: The clients that are there from the beginning.
        workers: How many work at a time.
        patience: Gives the seconds for which `abandon` waits until those that it leaves behind have ended.

    Attributes:
        workers: The same; it may be changed while no client works.
    """

    def __init__(
        self,
        make_client: Callable[[int], Client],
        proc_ids: Iterable[int],
        *,
        workers: int = 1,
        patience: Callable[[], float] = lambda: 0.0,
    ) -> None:
        identify_process()
        self._make_client, self.workers, self._patience = make_client, max(1, workers), patience
        self._clients: dict[int, Client] = {}
        self._proc_ids = set(proc_ids)
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._waiting: collections.deque[_Job] = collections.deque()
        self._jobs: dict[str, _Job] = {}
        self._replies: dict[str, Message] = {}
        self._busy: dict[int, _Job] = {}
        self._threads = 0

    @staticmethod
    def node_of(proc_id: int) -> int:
        """Return the node of a client's number."""
        return _FIRST_NODE + proc_id

    @staticmethod
    def proc_id_of(node_id: int) -> int:
        """Return the client's number of a node."""
        return node_id - _FIRST_NODE

    def join(self, proc_id: int) -> None:
        """Let one more client take part."""
        with self._changed:
            self._proc_ids.add(proc_id)

    def leave(self, proc_id: int) -> None:
        """Ask a client no more."""
        with self._changed:
            self._proc_ids.discard(proc_id)

    def get_node_ids(self) -> list[int]:
        """Return the nodes in order, without those that still work on what they were left behind with."""
        with self._changed:
            return [self.node_of(proc_id) for proc_id in sorted(self._proc_ids) if not self._is_left_behind(proc_id)]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Hand messages to the clients' threads and return at once, with a number for each message."""
        jobs = {str(next(self._numbers)): self._job(message) for message in messages}
        with self._changed:
            for number, job in jobs.items():
                job.message = Message(job.message.content, metadata=_numbered(job.message.metadata, number))
            self._jobs.update(jobs)
            self._waiting.extend(sorted(jobs.values(), key=lambda job: job.node_id))
            self._start_threads()
        return list(jobs)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies that are there, in the order of the clients; each only once."""
        with self._changed:
            found = [self._replies.pop(number) for number in list(message_ids) if number in self._replies]
        return sorted(found, key=lambda reply: reply.metadata.src_node_id)

    def wait_for_replies(self, message_ids: Iterable[str], seconds: float | None) -> None:
        """Wait until all of these messages are answered, or so many seconds passed."""
        numbers = list(message_ids)
        with self._changed:
            self._changed.wait_for(lambda: all(number not in self._jobs for number in numbers), seconds)

    def abandon(self, message_ids: Iterable[str]) -> None:
        """Wait no longer for the replies to these messages: what has not begun never will, the rest is dropped."""
        with self._changed:
            for number in message_ids:
                self._replies.pop(number, None)
                job = self._jobs.pop(number, None)
                if job in self._waiting:
                    self._waiting.remove(job)
                elif job is not None:
                    job.abandoned = True
                    self._threads -= 1
            self._start_threads()
            self._changed.wait_for(lambda: not any(job.abandoned for job in self._busy.values()), self._patience())

    def _job(self, message: Message) -> _Job:
        """Return the work that a message asks for, with a client that is made here if there is none yet."""
        node_id = message.metadata.dst_node_id
        proc_id = self.proc_id_of(node_id)
        try:
            if proc_id not in self._clients:
                self._clients[proc_id] = self._make_client(proc_id)
            return _Job(message, self._clients[proc_id], node_id)
        except Exception as error:  # one client that cannot begin is left out, as one that fails later
            return _Job(message, functools.partial(_fail, error), node_id)

    def _is_left_behind(self, proc_id: int) -> bool:
        job = self._busy.get(self.node_of(proc_id))
        return job is not None and job.abandoned

    def _start_threads(self) -> None:
        while self._threads < self.workers and (job := self._next_job()) is not None:
            self._threads += 1
            # A client that hangs must not keep the process from ending.
            threading.Thread(target=self._work, args=(job,), name=f"client-{job.node_id}", daemon=True).start()

    def _next_job(self) -> _Job | None:
        job = next((job for job in self._waiting if job.node_id not in self._busy), None)
        if job is not None:
            self._waiting.remove(job)
            self._busy[job.node_id] = job
        return job

    def _work(self, job: _Job | None) -> None:
        while job is not None:
            reply = _reply(job)
            with self._changed:
                del self._busy[job.node_id]
                if job.abandoned:
                    self._start_threads()
                    self._changed.notify_all()
                    return
                number = job.message.metadata.message_id
                del self._jobs[number]
                self._replies[number] = reply
                self._changed.notify_all()
                job = self._next_job()
                if job is None:
                    self._threads -= 1


def _fail(error: Exception, message: Message) -> Message:
    raise error


def _reply(job: _Job) -> Message:
    """Let the client answer; whatever goes wrong becomes an error reply."""
    try:
        reply = job.client(job.message)
        problem = "" if isinstance(reply, Message) else f"It answered with {type(reply).__name__}."
    except BaseException as error:  # in a thread of its own nobody else would hear of it, not even of sys.exit()
        problem = client_problem(error)
        logger.warning("Client %d could not answer: %s", LocalGrid.proc_id_of(job.node_id), problem)
        logger.debug("That came from:", exc_info=error)
    return Message(Error(CLIENT_FAILED, problem), reply_to=job.message) if problem else reply


def _numbered(metadata: Metadata, message_id: str) -> Metadata:
    """Return the metadata of a message with a number."""
    return Metadata(
        run_id=metadata.run_id,
        message_id=message_id,
        src_node_id=metadata.src_node_id,
        dst_node_id=metadata.dst_node_id,
        reply_to_message_id="",
        group_id=metadata.group_id,
        created_at=metadata.created_at,
        ttl=metadata.ttl,
        message_type=metadata.message_type,
    )
