"""A trial in its job, on a node: the same training as in a process of the driver's, which it reaches through files.

The cluster may end the job and start it again in the midst of all this: ahead of a time limit, for a job that counts
more, because of a node. So the job goes by its folder alone: the task, the answers that came so far, and whether it has
told its end already.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments_manager.cluster.jobs import record_job
from experiments_manager.common.exit_codes import ExitCode
from experiments_manager.common.machine.processes import usable_processors
from experiments_manager.runs import Run, RunError
from experiments_manager.runs.locking import LOCK_FILE, read_holder
from experiments_manager.sweeps.jobs.job_folder import Answers, JobFolder
from experiments_manager.sweeps.trials.channel import Message
from experiments_manager.sweeps.trials.fork_server import THREAD_VARIABLES

_LOOK_SECONDS = 1.0
_SIGN_SECONDS = 3.0
"""Between two signs of life: each waits for the file server."""
_WRITE_AGAIN, _WRITE_FOR = 5.0, 600.0
"""Seconds between attempts to write what the driver must know, and for how long they go on."""


def run_job(folder: Path, should_stop: Callable[[], bool]) -> ExitCode:
    """Train the trial of a job, or go on with it.

    Args:
        folder: Of the job.
        should_stop: Whether a signal asked to stop: then the job may be queued again.

    Returns:
        With what the process should end.

    Raises:
        SweepError: It is no folder of a job.
        OSError: The driver could not be told.
    """
    job = JobFolder(folder)
    task = job.task
    if "end" in job.status:  # and the cluster has started it again all the same
        return ExitCode.DONE
    threads = threads_of_job()
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, str(threads))
    run_dir = Path(task["trials_dir"]) / task["name"]
    driver = DriverByFiles(job, should_stop, task["patience"], on_start=lambda: _note_job(Run(run_dir), folder))
    driver.tell(kind="begun")
    if driver.wants_stop():
        driver.tell(kind="ended", state="interrupted", seconds=0.0)
    else:
        _remove_lock_of_former_job(run_dir, task["former_jobs"])
        from experiments_manager.sweeps.trials.trial_process import train

        train(driver, {**task, "threads": threads, "gpus": None})
    return ExitCode.INTERRUPTED if driver.was_left else ExitCode.DONE


def threads_of_job() -> int:
    """Return how many threads a job may compute with: the processors that it asked for, or has."""
    given = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE") or ""
    return min(int(given), usable_processors()) if given.isdecimal() else usable_processors()


def _remove_lock_of_former_job(run_dir: Path, former: list[str]) -> None:
    """Remove the lock that a job of this trial has left which is not in the queue any more, so that nothing holds it.

    On another node nobody could tell, and the lock would count until it expires.
    """
    file = run_dir / LOCK_FILE
    holder = read_holder(file)
    if holder is not None and holder.job.rpartition(" ")[2] in former:
        file.unlink(missing_ok=True)


def _note_job(run: Run, folder: Path) -> None:
    """Let `runs`, `logs` and `cancel` know which job trains a run."""
    with contextlib.suppress(RunError):
        record_job(run, os.environ.get("SLURM_JOB_ID"), folder, os.environ.get("SLURM_JOB_NAME"))


class DriverByFiles:
    """The driver at the other side of the shared disk; see `DriverLink`. There may be none for a while.

    Args:
        job: The folder.
        should_stop: Whether a signal asked to stop.
        patience: Seconds that an answer is waited for.
        on_start: Called when the run is there.

    Attributes:
        was_left: Whether a signal ended the training, which goes on when the job is started again.
    """

    def __init__(
        self,
        job: JobFolder,
        should_stop: Callable[[], bool],
        patience: float,
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        self.was_left = False
        self._job, self._signalled, self._patience, self._on_start = job, should_stop, patience, on_start
        self._status = {**job.status, "job": os.environ.get("SLURM_JOB_ID"), "host": socket.gethostname()}
        self._answers = job.answers or Answers()
        self._gave_up = self._was_refused = False
        self._told = 0.0
        self._changed = threading.Condition()
        threading.Thread(target=self._listen, name="driver", daemon=True).start()

    def wants_stop(self) -> bool:
        """Return whether the trial should end at the next step."""
        return self._answers.stop or self._gave_up or self._signalled()

    def tell(self, **message: Any) -> None:
        """Write how far the trial is; of signs of life and epochs only as many as the file server should see.

        Raises:
            OSError: It is something that the driver must have, and it could not be written for ten minutes.
        """
        kind = message["kind"]
        if kind in ("started", "epoch"):
            self._status["progress"] = {**self._status.get("progress", {}), **message}
        if kind in ("alive", "epoch"):
            self._give_sign()
            return
        if kind == "started":
            self._on_start()
        elif kind == "asked":
            self._status["question"] = message
        elif kind == "ended" and (end := self._as_it_ended(message)) is not None:
            self._status["end"] = end
        self._write()

    def ask(self, epoch: int, values: tuple[float, ...], curve: list[float | None], seconds: float) -> bool:
        """Ask whether the trial goes on after an epoch, and wait for the answer; a former start may have it already."""
        if epoch not in self._answers.verdicts:
            self.tell(kind="asked", epoch=epoch, values=values, curve=curve, seconds=seconds)
        until = time.monotonic() + self._patience
        with self._changed:
            while epoch not in self._answers.verdicts and not self.wants_stop():
                if time.monotonic() > until:  # it makes room for others, and goes on when there is a driver again
                    self._gave_up = True
                self._changed.wait(_LOOK_SECONDS)
        self._was_refused = self._answers.verdicts.get(epoch) is False
        return self._answers.verdicts.get(epoch, False)

    def _write(self) -> None:
        until = time.monotonic() + _WRITE_FOR
        while True:
            try:
                self._job.write_status(self._status)
                return
            except OSError:
                if time.monotonic() > until:
                    raise
            time.sleep(_WRITE_AGAIN)

    def _give_sign(self) -> None:
        if time.monotonic() - self._told > _SIGN_SECONDS:
            self._told = time.monotonic()
            with contextlib.suppress(OSError):  # the disk may be full for a moment, and the next sign will do
                self._job.write_status({**self._status, "at": time.time()}, sync=False)

    def _as_it_ended(self, message: Message) -> Message | None:
        """Tell apart why a training was interrupted; one that goes on when the job is started again has not ended."""
        if message["state"] not in ("interrupted", "stopped") or self._was_refused:
            return message
        if self._answers.stop or self._gave_up:
            return {**message, "state": "interrupted"}
        self.was_left = True
        return None

    def _listen(self) -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            answers = self._job.answers
            with self._changed:
                self._answers = answers or self._answers
                self._changed.notify_all()
