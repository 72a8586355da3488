"""The jobs of runs: their states in a list, their output, their end."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments_manager.cluster import slurm
from experiments_manager.cluster.errors import ClusterError
from experiments_manager.cluster.slurm import JobState
from experiments_manager.runs import Run, RunError, RunRow

OUT_OF_MEMORY = "out of memory"
_WORDS_OF_SLURMSTEPD = (b"exceeded memory limit", b"exceeded job memory limit", b"oom_kill event", b"oom-kill event")
_ENDED = ("finished", "failed")
_POLL_SECONDS = 1.0
_STATE_SECONDS = 10.0
"""The controller of a cluster is asked no more often than that while its answer is waited for."""


def job_of(run: Run) -> dict[str, Any]:
    """Return what run.json says of the job that trains it.

    Raises:
        ClusterError: It was not submitted.
    """
    job = run.manifest.get("job")
    if not isinstance(job, dict) or not job.get("id"):
        raise ClusterError(f"{run.path} belongs to no job. Expected a run that `experiments_manager submit` has made.")
    return job


def record_job(run: Run, job: str | None, folder: Path, name: str | None) -> None:
    """Let run.json say which job trains a run.

    Args:
        run: The run.
        job: Number of the job.
        folder: Of its script and output.
        name: Of the job in the queue.

    Raises:
        RunError: It cannot be written.
    """
    run.update(job={"scheduler": "slurm", "id": job, "folder": str(folder), "name": name})


def with_job_states(rows: Sequence[RunRow]) -> list[RunRow]:
    """Return rows of a list of runs with the states of their jobs, where the run itself has not ended.

    Where the cluster cannot be asked from here, or has forgotten a job, the row says what the run says.
    """
    open_rows = [row for row in rows if row.job and row.state not in _ENDED]
    try:
        states = slurm.job_states(row.job for row in open_rows)
    except ClusterError:
        return list(rows)
    return [_with_state(row, states.get(row.job or "")) if row in open_rows else row for row in rows]


def _with_state(row: RunRow, job: JobState | None) -> RunRow:
    if job is None or job.state == "finished":
        return row
    if job.state == "failed":
        reason = job.reason
        with contextlib.suppress(ClusterError, RunError):
            reason = failure(job, output_file(Run(row.path)))
        return dataclasses.replace(row, state="failed", problem=f"{row.path}: job {job.id} failed: {reason}.")
    return dataclasses.replace(row, state=job.state)


def failure(job: JobState, output: Path) -> str:
    """Return why a job has failed, from what the cluster says of it, and SLURM in its output.

    Without control groups SLURM says in the output alone that the memory was used up.
    """
    try:
        with output.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - 4096))
            end = stream.read().lower()
    except OSError:
        return job.reason
    return OUT_OF_MEMORY if any(words in end for words in _WORDS_OF_SLURMSTEPD) else job.reason


def cancel(run: Run) -> tuple[str, str | None]:
    """Cancel the job of a run; a run that trains stops where it can go on.

    Returns:
        The job's number; and how it has ended, where it had before, so that nothing was cancelled.

    Raises:
        ClusterError: It has no job, or the cluster refuses.
    """
    job = job_of(run)
    state = slurm.job_states([job["id"]]).get(job["id"])
    if state is None or state.state not in ("queued", "requeued", "running"):
        return job["id"], "the cluster has forgotten how" if state is None else state.state
    slurm.cancel(job["id"])
    run.update(job={**job, "cancelled": datetime.datetime.now().astimezone().isoformat(timespec="seconds")})
    return job["id"], None


def output_file(run: Run) -> Path:
    """Return the file that the job of a run writes its output to; it is there once the job has begun."""
    job = job_of(run)
    return output_in(Path(job["folder"]), job["id"])


def output_in(folder: Path, job: str) -> Path:
    """Return the output of the job of a folder; see `Job.output`, which names it before the job has a number."""
    return folder / f"slurm-{job}.out"


def output(run: Run, *, follow: bool = False, tell: Callable[[str], None] = lambda text: None) -> Iterator[bytes]:
    """Give the output of a run's job, piece by piece.

    Args:
        run: The run.
        follow: Whether to wait for more until the job has ended.
        tell: Called with what a person who waits should know.

    Raises:
        ClusterError: The run has no job, or its job has not begun and nobody wants to wait.
    """
    file, job = output_file(run), job_of(run)["id"]
    if not file.exists() and not follow:
        raise ClusterError(f"Job {job} has written nothing yet: {file} is not there. Wait for it by --follow.")
    asked, told, state, place = 0.0, "", None, 0
    while True:
        piece = _read_from(file, place)
        place += len(piece)
        if piece:
            yield piece
            continue
        if not follow or (asked and (state is None or state.state not in ("queued", "requeued", "running"))):
            return
        if time.monotonic() - asked > _STATE_SECONDS or not asked:
            state, asked = slurm.job_states([job]).get(job), time.monotonic()
            if state is not None and state.state != told:
                told = state.state
                tell(f"Job {job}: {told}{' (' + state.reason + ')' if state.reason else ''}")
            continue
        time.sleep(_POLL_SECONDS)


def _read_from(file: Path, place: int) -> bytes:
    try:
        with file.open("rb") as stream:
            stream.seek(place)
            return stream.read(1 << 20)
    except FileNotFoundError:
        return b""
