"""The jobs of a sweep as the cluster sees them: handed over, found again by name, cancelled, and why they ended."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments_manager.cluster import slurm
from experiments_manager.cluster.batch_script import Job
from experiments_manager.cluster.errors import ClusterError
from experiments_manager.cluster.job_options import JobOptions, check_image, job_options
from experiments_manager.cluster.jobs import failure, output_in
from experiments_manager.cluster.slurm import QueuedJob
from experiments_manager.cluster.submission import submit_job
from experiments_manager.common import atomic
from experiments_manager.common.console import warn
from experiments_manager.common.exit_codes import ExitCode
from experiments_manager.runs.errors import explain
from experiments_manager.sweeps.errors import SweepError
from experiments_manager.sweeps.jobs.job_folder import JobFolder
from experiments_manager.sweeps.sweep_file import SweepFile

COMMAND = ("sweep", "trial")
"""The command that runs on a node, with the folder of the job."""
_ALIVE = ("queued", "requeued", "running")
_MAY_GO_ON = ("node failed", "preempted")


@dataclasses.dataclass(frozen=True)
class End:
    """How a job ended.

    Attributes:
        reason: In words.
        outside: Whether that was no fault of the trial, so that it goes on in another job.
        of_time: Whether the time limit came before the run could stop where it can go on.
    """

    reason: str
    outside: bool
    of_time: bool = False


def options_of_jobs(file: SweepFile, of_settings: Mapping[str, Any], given: Mapping[str, Any]) -> JobOptions:
    """Return what each job of a sweep asks for: later places count more, and lists are joined.

    Args:
        file: The sweep file, with its own `cluster`.
        of_settings: What the settings file says by `cluster`.
        given: What the command line says.

    Raises:
        ClusterError: With everything that is wrong; or there is no SLURM here.
    """
    options = job_options(
        (f"{file.settings_file}: cluster", of_settings),
        (f"{file.file}: cluster", file.plan.cluster),
        ("--cluster", given),
    )
    if options.nodes != 1:
        raise ClusterError(
            f"A trial of a sweep runs on one node. Expected nodes = 1, got {options.nodes}. Add `--cluster nodes=1`."
        )
    check_image(options)
    missing = [name for name in ("sbatch", "squeue", "scontrol", "scancel") if shutil.which(name) is None]
    if missing:
        raise ClusterError(
            f"--executor slurm: there is no {missing[0]} here. Expected SLURM's commands on the PATH. Log in to a node "
            "of the cluster from which jobs are submitted, or leave --executor out to run the trials on this machine."
        )
    if file.memory_limit is not None:
        warn("memory_limit counts for trials on this machine; the jobs of a cluster have the memory of `mem`.")
    if file.plan.trials_per_process > 1:
        warn("trials_per_process counts for trials on this machine; each job of a cluster is one trial.")
    return options


def refuse_jobs_in_queue(sweep: Path, known: Mapping[str, str]) -> None:
    """Refuse to run trials here that are jobs of a cluster still.

    Args:
        sweep: Folder of the sweep.
        known: Numbers of its jobs, as the journal has them.

    Raises:
        SweepError: There are such jobs.
    """
    if not known:
        return
    try:
        queued = {job.id for job in slurm.queued_jobs()} & set(known.values())
    except ClusterError:
        return  # another machine; the locks of the runs keep two processes apart
    if queued:
        raise SweepError(
            f"Jobs {', '.join(sorted(queued))} of the sweep in {sweep} are in the queue. Expected none, to run "
            "its trials on this machine. Go on by --executor slurm, or end them first by scancel."
        )


class JobQueue:
    """The jobs of a sweep: their folders, and the cluster's queue as far as they are concerned.

    The name of a job in the queue ends with letters that no other sweep has, so that one whose number nobody wrote down
    is found again.

    Args:
        sweep: Folder of the sweep.
        options: What each job asks for.
        binds: Folders that an image must see, besides that of the sweep.

    Raises:
        RunError: The folder cannot be written.
    """

    def __init__(self, sweep: Path, options: JobOptions, binds: Sequence[Path] = ()) -> None:
        self._options, self._binds = options, (sweep, *binds)
        self._folder = sweep / "jobs"
        self._title = re.sub(r"[^\w.]+", "_", sweep.name)
        mark = self._folder / "mark.txt"
        try:
            if not mark.exists():
                self._folder.mkdir(exist_ok=True)
                atomic.write_text(mark, os.urandom(8).hex() + "\n")
            # A copy of the folder stands elsewhere, and has no jobs.
            self._mark = hashlib.sha256(f"{mark.read_text()}{mark}".encode()).hexdigest()[:8]
        except OSError as error:
            raise explain(error, "make the folder of jobs", self._folder) from error

    def new(self, trial: str, task: Mapping[str, Any]) -> JobFolder:
        """Make the folder of a trial's next job.

        Raises:
            RunError: It cannot be made.
        """
        folder = JobFolder(self._folder / trial / str(max(self._numbers(trial), default=0) + 1))
        folder.make(dict(task))
        return folder

    def newest(self, trial: str) -> JobFolder | None:
        """Return the folder of a trial's last job; `None` where it has had none."""
        numbers = self._numbers(trial)
        return JobFolder(self._folder / trial / str(max(numbers))) if numbers else None

    def submit(self, folder: JobFolder) -> str:
        """Submit the job of a folder, and return its number.

        Raises:
            ClusterError: The cluster refuses it, or does not answer, in which case the job may be in the queue.
        """
        command = (*COMMAND, str(folder.path))
        job = Job(self._name_of(folder), folder.path, Path.cwd(), (command,), self._binds)
        try:
            return submit_job(job, self._options)
        except OSError as error:
            raise ClusterError(f"{folder.path}/job.sh cannot be written: {error.strerror}.") from error

    def look(self) -> dict[str, tuple[JobFolder, QueuedJob]]:
        """Return the jobs of the sweep that wait or run, by the keys of their folders.

        Raises:
            ClusterError: The cluster does not answer.
        """
        found = [(self._named(job.name), job) for job in slurm.queued_jobs()]
        return {folder.key: (folder, job) for folder, job in found if folder is not None}

    def cancel(self, job: str) -> None:
        """Cancel a job; one that is not there any more, or a cluster that does not answer, is passed over."""
        with contextlib.suppress(ClusterError):
            slurm.cancel(job)

    def end_of(self, folder: JobFolder, job: str) -> End | None:
        """Return how a job that is not in the queue has ended; `None` where it is there all the same.

        Raises:
            ClusterError: The cluster does not answer.
        """
        state = slurm.job_states([job]).get(job)
        if state is None:
            return End(f"its job {job} has left the queue, and the cluster does not know how", outside=True)
        if state.state in _ALIVE:
            return None
        if state.state == "finished":
            return End(f"its job {job} has ended without a word", outside=True)
        if state.state == "cancelled":
            return End(f"its job {job} was cancelled", outside=False)
        output = output_in(folder.path, job)
        why = failure(state, output)
        if why == f"exit code {int(ExitCode.INTERRUPTED)}":
            if state.restarts >= self._options.max_requeues:
                times = f"was queued again {state.restarts} times (max_requeues) and is not finished"
                return End(f"its job {job} {times}", outside=False)
            return End(f"its job {job} was interrupted", outside=True)
        where = f" (see {output})" if why.startswith(("exit code", "signal")) else ""
        return End(f"its job {job} failed: {why}{where}", why in _MAY_GO_ON, of_time=why == "time limit")

    def _name_of(self, folder: JobFolder) -> str:
        """Return the name of a job in the queue."""
        return f"{self._title}-{folder.path.parent.name}.{folder.path.name}-{self._mark}"

    def _named(self, name: str) -> JobFolder | None:
        """Return the folder of the job that goes by a name; `None` where it is not of this sweep."""
        found = re.fullmatch(rf"{re.escape(self._title)}-(trial_\d+(?:-\d+)?)\.(\d+)-{self._mark}", name)
        return JobFolder(self._folder / found[1] / found[2]) if found else None

    def _numbers(self, trial: str) -> list[int]:
        with contextlib.suppress(OSError):
            return [int(entry.name) for entry in (self._folder / trial).iterdir() if entry.name.isdecimal()]
        return []
