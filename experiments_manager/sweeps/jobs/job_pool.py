"""Trials as jobs of a cluster: at most so many in the queue, heard through files, taken up again by the next driver.

A job needs no driver to train. It goes on while there is none, and what it has told meanwhile is in its folder. So a
driver that begins anew first takes up the jobs which the one before has left: those in the queue, found by their
numbers or, where that one was killed between the submission and its journal, by their names; and those that have ended
since then. Only what has no job is submitted.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

from experiments_manager.cluster.errors import ClusterError
from experiments_manager.cluster.slurm import QueuedJob
from experiments_manager.common.console import warn
from experiments_manager.sweeps.jobs.job_folder import Answers, JobFolder
from experiments_manager.sweeps.jobs.job_queue import JobQueue
from experiments_manager.sweeps.state.trials import FAILED, FINISHED
from experiments_manager.sweeps.trials.channel import Message
from experiments_manager.sweeps.trials.trial_pool import DIED

_LOOKS_A_SECOND = 20
"""Files that are looked into a second at most, however many jobs there are."""


@dataclasses.dataclass(frozen=True)
class Pace:
    """How often what is asked, in seconds.

    Attributes:
        files: Between two looks into the file of a job.
        queue: Between two questions to the cluster, which serves many.
        soon: The same while the end of a job is awaited.
        refused: Before a job is submitted again that the cluster refused, while others are in the queue.
        settle: How long the last word of a job that has left the queue is waited for.
        linger: How long a job may stay in the queue after its last word before it is cancelled.
        patience: How long a job waits for an answer where there is no driver, before it makes room for others.
    """

    files: float = 1.0
    queue: float = 15.0
    soon: float = 2.0
    refused: float = 60.0
    settle: float = 5.0
    linger: float = 120.0
    patience: float = 600.0


class TrackedJob:
    """What the driver knows of one job: what it told, what it was told, and whether it is in the queue.

    Args:
        trial: Number of its trial.
        folder: Where the two talk.
        number: Of the job; `None` where it is not known.
        is_orphan: Whether it is only waited for, as its trial has ended.

    Attributes:
        waits: Whether it is in the queue and does not run, as far as is known.
        has_trained: Whether it has come to the end of an epoch.
    """

    def __init__(self, trial: int, folder: JobFolder, number: str | None, *, is_orphan: bool = False) -> None:
        self.trial, self.folder, self.id, self.is_orphan = trial, folder, number, is_orphan
        self.waits, self.has_trained = False, False
        self.answers = folder.answers or Answers()
        self._status: Message = {}
        self._unread = self._look()
        self._runs = False
        self._heard = self._ended_at = time.monotonic()
        self._left: float | None = None
        self._news: list[Message] = []
        self._reason: str | None = None

    @property
    def end(self) -> Message | None:
        """How its trial ended, as its last message says; `None` where it is not there yet."""
        return self._status.get("end")

    @property
    def has_left(self) -> bool:
        """Whether it is not in the queue any more."""
        return self._left is not None

    @property
    def is_idle(self) -> bool:
        """Whether it was asked to stop and waits in the queue, where it cannot notice."""
        return self.answers.ends and self.waits

    @property
    def seconds_since_end(self) -> float:
        """Since its last message was found; 0 where there is none."""
        return time.monotonic() - self._ended_at if self.end is not None else 0.0

    @property
    def seconds_since_left(self) -> float:
        """Since it was first missing in the queue."""
        return time.monotonic() - (self._left or time.monotonic())

    @property
    def silent_seconds(self) -> float:
        """For how long it has run without a sign; 0 for one that does not run, or has no more to say."""
        busy = self._runs and self.end is None and self.answers.killed is None and not self.answers.stop
        return time.monotonic() - self._heard if busy else 0.0

    def read(self) -> list[Message]:
        """Return what is new, but its last message, which waits until the job has left the queue."""
        found, self._unread = [*self._unread, *self._look()], []
        return [] if self.is_orphan else found

    def _look(self) -> list[Message]:
        status, former = self.folder.status, self._status
        if not status or status == former:
            return []
        self._status, self._heard = status, time.monotonic()
        self.id = self.id or status.get("job")
        if "end" in status and "end" not in former:
            self._ended_at = time.monotonic()
        progress, question = status.get("progress"), status.get("question")
        found = [progress] if progress and progress != former.get("progress") else []
        self.has_trained |= any(message["kind"] == "epoch" for message in found)
        if question and question != former.get("question") and question["epoch"] not in self.answers.verdicts:
            found.append(question)
        return found

    def news(self) -> list[Message]:
        """Return that it waits now, and for what, where that has changed."""
        found, self._news = self._news, []
        return [] if self.is_orphan else found

    def see(self, queued: QueuedJob | None) -> None:
        """Note what the queue says of it; `None` where it is not there."""
        now = time.monotonic()
        if queued is None:
            self._left, self._runs, self.waits = self._left or now, False, False
            return
        if queued.runs and not self._runs or not queued.runs:
            self._heard = now  # waiting is no lack of progress
        if queued.waits and self._reason != queued.reason:
            self._news = [{"kind": "queued", "reason": queued.reason}]
        self._reason = queued.reason if queued.waits else None
        self._left, self._runs, self.waits = None, queued.runs, queued.waits
        self.id = queued.id

    def is_back(self) -> None:
        """Note that it is in the queue all the same."""
        self._left = None

    def answer(self, *, go: bool) -> None:
        """Answer its question.

        Raises:
            SweepError: The answer cannot be written.
        """
        question = self._status.get("question")
        if question and question["epoch"] not in self.answers.verdicts:
            self._tell(verdicts={**self.answers.verdicts, question["epoch"]: go})

    def ask_to_stop(self) -> None:
        """Let it write a checkpoint and end; also if it begins later.

        Raises:
            SweepError: That cannot be written.
        """
        if not self.answers.stop:
            self._tell(stop=True)

    def kill(self, reason: str) -> None:
        """Note why it is about to be cancelled, also for a later driver.

        Raises:
            SweepError: That cannot be written.
        """
        self._tell(killed=reason)

    def _tell(self, **changes: Any) -> None:
        answers = dataclasses.replace(self.answers, **changes)
        self.folder.write_answers(answers)
        self.answers = answers


class JobPool:
    """Jobs that run trials; see `TrialPool`.

    Args:
        queue: Of the cluster.
        parallel: How many there are in the queue at most.
        known: The jobs' numbers by the keys of their folders, as the journal has them.
        timeout: Seconds without a sign of progress, while it runs, after which one is cancelled; `None`: never.
        goes_on: Whether the jobs go on when the driver is asked to stop.
        pace: How often what is asked.
    """

    def __init__(
        self,
        queue: JobQueue,
        parallel: int,
        *,
        known: Mapping[str, str],
        timeout: float | None = None,
        goes_on: Callable[[], bool] = lambda: False,
        pace: Pace | None = None,
    ) -> None:
        self._queue, self._parallel, self._known = queue, parallel, known
        self._timeout, self._goes_on, self._pace = timeout, goes_on, pace or Pace()
        self._jobs: list[TrackedJob] = []
        self._unsure: dict[int, JobFolder] = {}
        """Of trials whose submission failed, so that a job may be there all the same."""
        self._read_at = self._asked_at = self._refused_until = 0.0
        self._is_stopping = self._is_silent = False

    @property
    def running(self) -> list[int]:
        """The numbers of the trials that have a job in the queue."""
        return [job.trial for job in self._jobs]

    @property
    def free(self) -> int:
        """How many more jobs may be submitted now."""
        if self._is_stopping or self._jobs and time.monotonic() < self._refused_until:
            return 0
        return max(0, self._parallel - len(self._jobs))

    def reattach(self, tasks: Mapping[int, Message]) -> dict[int, dict[str, Any]]:
        """Reattach to the jobs that an earlier driver left, and let those end that nobody wants any more.

        Raises:
            ClusterError: The cluster does not answer.
            SweepError: A file cannot be written.
        """
        queued, taken = self._queue.look(), {}
        for trial, task in tasks.items():
            folder = self._queue.newest(task["name"])
            if folder is None:
                continue
            _, there = queued.get(folder.key, (None, None))
            job = self._left_behind(trial, folder, there)
            if job is None or not folder.does(task):
                continue  # one that is in the queue is asked to stop below
            queued.pop(folder.key, None)
            self._jobs.append(job)
            taken[trial] = {} if folder.key in self._known else {"job": job.id, "folder": folder.key}
        for folder, there in queued.values():
            self._let_end(folder, there)
        return taken

    def start(self, trial: int, task: Message) -> dict[str, Any] | None:
        """Submit a job that begins a trial or goes on with it.

        Where the cluster refuses it, this is tried again later as long as other jobs are in the queue.

        Raises:
            ClusterError: The cluster refuses the job.
            SweepError: A file cannot be written.
            RunError: The folder of the job cannot be made.
        """
        try:
            folder, number = self._submitted(trial, task)
        except ClusterError as error:
            if not self._jobs:
                raise ClusterError(
                    f"{error} Nothing is lost: correct the options of the jobs (docs/clusters.md), then go on by "
                    "--resume."
                ) from error
            warn(f"{error} It is tried again while other jobs of the sweep are in the queue.")
            self._refused_until = time.monotonic() + self._pace.refused
            return None
        self._jobs.append(TrackedJob(trial, folder, number))
        return {"job": number, "folder": folder.key}

    def answer(self, trial: int, *, go: bool) -> None:
        """Tell a trial that has asked whether it goes on.

        Raises:
            SweepError: The answer cannot be written.
        """
        job = next((job for job in self._jobs if job.trial == trial and not job.is_orphan), None)
        if job is not None:  # it may have ended meanwhile, and asks again or knows when its trial goes on
            job.answer(go=go)

    def ask_to_stop(self) -> None:
        """Let all trials write a checkpoint and end at their next step, and cancel the jobs that wait.

        Raises:
            SweepError: A file cannot be written.
        """
        if self._goes_on():
            self.close()
            return
        self._is_stopping = True
        for job in self._jobs:
            job.ask_to_stop()
        self._ask_cluster()

    def poll(self, seconds: float) -> list[tuple[int, Message]]:
        """Wait for messages for some seconds at most."""
        time.sleep(max(0.0, min(seconds, self._read_at - time.monotonic())))
        found: list[tuple[int, Message]] = []
        if time.monotonic() >= self._read_at:
            for job in self._jobs:
                found += [(job.trial, message) for message in job.read()]
            self._read_at = time.monotonic() + max(self._pace.files, len(self._jobs) / _LOOKS_A_SECOND)
        hurry = self._is_stopping or any(job.end or job.has_left for job in self._jobs)
        if time.monotonic() - self._asked_at > (self._pace.soon if hurry else self._pace.queue):
            self._ask_cluster()
            for job in list(self._jobs):
                found += [(job.trial, message) for message in [*job.news(), *self._ending(job)]]
                self._end_silent(job)
        return found

    def close(self) -> None:
        """Let go of the jobs: those that are in the queue go on, and the next driver takes them up."""
        if self._jobs and self._is_stopping:
            warn(f"{len(self._jobs)} jobs of the sweep have not ended yet; they do at a checkpoint.")
        elif self._jobs:
            warn(f"{len(self._jobs)} jobs of the sweep are in the queue and go on; --resume takes them up.")
        self._jobs.clear()

    def _left_behind(self, trial: int, folder: JobFolder, there: QueuedJob | None) -> TrackedJob | None:
        """Return the job of a folder if anything can still come of it; `there` is what the queue says of it."""
        number = there.id if there else self._known.get(folder.key)
        job = TrackedJob(trial, folder, number)
        if job.id is None:  # if it comes into the queue all the same, it ends at once
            job.ask_to_stop()
        has_result = job.end is not None and job.end["state"] in (FINISHED, FAILED)
        if there is None and (job.id is None or (job.answers.ends and not has_result)):
            return None
        job.see(there)
        return job

    def _let_end(self, folder: JobFolder, there: QueuedJob) -> None:
        job = TrackedJob(folder.trial, folder, there.id, is_orphan=True)
        if not folder.is_readable:  # nor does it read what is written here
            self._queue.cancel(there.id)
        job.see(there)
        job.ask_to_stop()
        self._jobs.append(job)

    def _submitted(self, trial: int, task: Message) -> tuple[JobFolder, str]:
        doubtful = self._unsure.get(trial)
        if doubtful is not None:
            found = self._queue.look().get(doubtful.key)
            if found is not None:
                del self._unsure[trial]
                return doubtful, found[1].id
            TrackedJob(trial, doubtful, None).ask_to_stop()  # for it may come yet
        former = [job for key, job in self._known.items() if key.startswith(f"{task['name']}/")]
        told = {"kind": "train", **task, "former_jobs": former, "patience": self._pace.patience}
        folder = self._queue.new(task["name"], told)
        self._unsure[trial] = folder
        number = self._queue.submit(folder)
        del self._unsure[trial]
        return folder, number

    def _ask_cluster(self) -> None:
        """Look which jobs wait, run, and have left, and cancel those that must go and cannot do so by themselves.

        A cluster that does not answer is asked again later.
        """
        self._asked_at = time.monotonic()
        try:
            queued = self._queue.look()
        except ClusterError as error:
            if not self._is_silent:
                warn(f"{error} The jobs go on; it is asked again.")
            self._is_silent = True
            return
        self._is_silent = False
        for job in self._jobs:
            job.see(queued.get(job.folder.key, (None, None))[1])
            if not job.has_left and (job.answers.killed or job.is_idle or job.seconds_since_end > self._pace.linger):
                self._queue.cancel(job.id)

    def _ending(self, job: TrackedJob) -> list[Message]:
        """Return the last messages of a job that has left the queue, and forget it."""
        if not job.has_left:
            gives_up = job.seconds_since_end > 2 * self._pace.linger  # its node may be at fault
            return self._forgotten(job, []) if gives_up else []
        found = job.read()  # what it told between the last look and its end
        if job.end or job.answers.ends:
            return self._forgotten(job, found)
        if job.seconds_since_left < self._pace.settle:
            return found
        try:
            end = self._queue.end_of(job.folder, job.id)
        except ClusterError:
            return found
        if end is None:
            job.is_back()
            return found
        outside = end.outside or (end.of_time and job.has_trained)
        killed = job.answers.killed
        died = {"kind": DIED, "reason": killed or end.reason, "outside": outside and not killed}
        return self._forgotten(job, [*found, died])

    def _forgotten(self, job: TrackedJob, messages: list[Message]) -> list[Message]:
        self._jobs.remove(job)
        return [] if job.is_orphan else [*messages, *([job.end] if job.end else [])]

    def _end_silent(self, job: TrackedJob) -> None:
        """Cancel a job that makes no progress."""
        if self._timeout is not None and job in self._jobs and job.silent_seconds > self._timeout:
            job.kill(f"no progress for {self._timeout:g} s (trial_timeout)")
            self._ask_cluster()
