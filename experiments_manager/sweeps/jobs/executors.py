"""How a sweep comes to its jobs: what they ask for, checked before anything is written, and the pool of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments_manager.cluster import slurm
from experiments_manager.cluster.errors import ClusterError
from experiments_manager.cluster.job_options import JobOptions
from experiments_manager.common.console import warn
from experiments_manager.sweeps.errors import SweepError
from experiments_manager.sweeps.experiment import SweptExperiment
from experiments_manager.sweeps.jobs.job_folder import JobFolders
from experiments_manager.sweeps.jobs.job_pool import JobPool
from experiments_manager.sweeps.jobs.job_queue import JobQueue, job_options
from experiments_manager.sweeps.state.folder import SweepFolder
from experiments_manager.sweeps.sweep_file import SweepFile


@dataclasses.dataclass(frozen=True)
class ClusterJobs:
    """What the jobs of a sweep are.

    Attributes:
        options: What each asks for.
        binds: Folders that an image must see.
        timeout: Seconds without progress after which one is cancelled.
        go_on: Whether they go on when the sweep is asked to stop.
    """

    options: JobOptions
    binds: tuple[Path, ...]
    timeout: float | None
    go_on: Callable[[], bool]

    def pool(self, folder: SweepFolder, parallel: int, known: Mapping[str, str]) -> JobPool:
        """Return the pool of jobs.

        Args:
            folder: Of the sweep.
            parallel: How many jobs are in the queue at most.
            known: Their numbers, as the journal has them.

        Raises:
            RunError: The folder of jobs cannot be made.
        """
        folders = JobFolders(folder.path)
        queue = JobQueue(folders, self.options, (folder.path, *self.binds))
        return JobPool(queue, folders, parallel, known=known, timeout=self.timeout, goes_on=self.go_on)


def choose_jobs(
    file: SweepFile, experiment: SweptExperiment, given: Mapping[str, Any], go_on: Callable[[], bool]
) -> ClusterJobs:
    """Find out what the jobs of a sweep ask for.

    Args:
        file: The sweep file.
        experiment: What is known of the experiment.
        given: What the command line says.
        go_on: Whether the jobs go on when the sweep is asked to stop.

    Raises:
        ClusterError: With everything that is wrong; or there is no SLURM here.
    """
    options = job_options(
        file.file,
        file.settings_file,
        of_settings=experiment.settings["cluster"],
        of_file=file.plan.cluster,
        given=given,
    )
    if file.memory_limit is not None:
        warn("memory_limit counts for trials on this machine; the jobs of a cluster have the memory of `mem`.")
    if file.plan.trials_per_process > 1:
        warn("trials_per_process counts for trials on this machine; each job of a cluster is one trial.")
    return ClusterJobs(options, (file.settings_file.parent, file.file.parent), file.plan.trial_timeout, go_on)


def refuse_jobs_in_queue(folder: SweepFolder, known: Mapping[str, str]) -> None:
    """Refuse to run trials here that are jobs of a cluster still.

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
            f"Jobs {', '.join(sorted(queued))} of the sweep in {folder.path} are in the queue. Expected none, to run "
            "its trials on this machine. Go on by --executor slurm, or end them first by scancel."
        )
