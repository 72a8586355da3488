"""What the driver knows of one job: what it told, what it was told, and whether it is in the queue."""

from __future__ import annotations

import time

from experiments_manager.cluster.slurm import QueuedJob
from experiments_manager.sweeps.errors import SweepError
from experiments_manager.sweeps.jobs.job_folder import JobFolder
from experiments_manager.sweeps.jobs.message_file import MessageReader, MessageWriter
from experiments_manager.sweeps.trials.channel import Message

_RESULTS = ("finished", "failed")
_OF_THE_DRIVER = ("started", "epoch", "asked")


class TrackedJob:
    """One job.

    Args:
        trial: Number of its trial.
        folder: Where the messages are.
        number: Of the job; `None` where it is not known.
        is_orphan: Whether it is only waited for, as its trial has ended.

    Attributes:
        waits: Whether it is in the queue and does not run, as far as is known.
        killed: Why it was cancelled by us.
        was_told_to_end: Whether it was asked to stop, or its question answered by a no.
    """

    def __init__(self, trial: int, folder: JobFolder, number: str | None, *, is_orphan: bool = False) -> None:
        self.trial, self.folder, self.id, self.is_orphan = trial, folder, number, is_orphan
        self.waits, self.was_told_to_end = False, False
        self.killed: str | None = None
        self._messages, self._answers = MessageReader(folder.messages), MessageWriter(folder.answers)
        self._answered: set[int] = set()
        self._question: int | None = None
        self._early: list[Message] = []
        self._end: Message | None = None
        self._is_stopping = self._runs = False
        self.has_trained = False
        self._heard = self._ended_at = time.monotonic()
        self._left: float | None = None
        self._news: list[Message] = []
        self._reason: str | None = None

    @property
    def has_final_message(self) -> bool:
        """Whether its last message is there."""
        return self._end is not None

    @property
    def has_result(self) -> bool:
        """Whether it told how its trial ended."""
        return self._end is not None and self._end["state"] in _RESULTS

    @property
    def has_left(self) -> bool:
        """Whether it is not in the queue any more."""
        return self._left is not None

    @property
    def is_idle(self) -> bool:
        """Whether it was asked to stop and waits in the queue, where it cannot notice."""
        return self.was_told_to_end and self.waits

    @property
    def seconds_since_end(self) -> float:
        """Since its last message was found; 0 where there is none."""
        return time.monotonic() - self._ended_at if self._end is not None else 0.0

    @property
    def seconds_since_left(self) -> float:
        """Since it was first missing in the queue."""
        return time.monotonic() - (self._left or time.monotonic())

    @property
    def silent_seconds(self) -> float:
        """For how long it has run without a message; 0 for one that does not run, or has no more to say."""
        busy = self._runs and self._end is None and self.killed is None and not self._is_stopping
        return time.monotonic() - self._heard if busy else 0.0

    def catch_up(self) -> None:
        """Read what was told and answered before this driver began."""
        for answer in MessageReader(self.folder.answers).read():
            if answer["kind"] == "verdict":
                self._answered.add(answer["epoch"])
                self.was_told_to_end |= not answer["go"]
            elif answer["kind"] == "killed":
                self.killed = answer["reason"]
            elif answer["kind"] == "stop":
                self._is_stopping = self.was_told_to_end = True
        self._early = self.read()

    def read(self) -> list[Message]:
        """Return what is new, but its last message, which waits until the job has left the queue."""
        found, self._early = self._early, []
        for message in self._messages.read():
            self._heard = time.monotonic()
            if message["kind"] == "begun":
                self.id = self.id or message["job"]
                self._end = None
            elif message["kind"] == "ended":
                self._end, self._ended_at = message, time.monotonic()
            elif message["kind"] == "asked":
                if message["epoch"] not in self._answered:
                    self._question = message["epoch"]
                    found.append(message)
            elif message["kind"] in _OF_THE_DRIVER:
                self.has_trained |= message["kind"] == "epoch"
                found.append(message)
        return [] if self.is_orphan else found

    def news(self) -> list[Message]:
        """Return that it waits now, and for what, where that has changed."""
        found, self._news = self._news, []
        return [] if self.is_orphan else found

    def final_message(self) -> list[Message]:
        """Return its last message, where there is one."""
        return [] if self._end is None else [self._end]

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
        if self._question is not None and self._question not in self._answered:
            self._tell({"kind": "verdict", "epoch": self._question, "go": go})
            self._answered.add(self._question)
            self.was_told_to_end |= not go

    def ask_to_stop(self) -> None:
        """Let it write a checkpoint and end; also if it begins later.

        Raises:
            SweepError: That cannot be written.
        """
        if not self._is_stopping:
            self._tell({"kind": "stop"})
            self._is_stopping = self.was_told_to_end = True

    def kill(self, reason: str) -> None:
        """Note why it is about to be cancelled, also for a later driver.

        Raises:
            SweepError: That cannot be written.
        """
        self.killed = reason
        self._tell({"kind": "killed", "reason": reason})

    def close(self) -> None:
        """Close its files."""
        self._answers.close()

    def _tell(self, message: Message) -> None:
        try:
            self._answers.write(message)
        except OSError as error:
            raise SweepError(
                f"{self.folder.answers} cannot be written: {error.strerror}. Fix that (free some space), then go on by "
                "--resume."
            ) from error
