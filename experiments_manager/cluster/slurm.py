"""SLURM's own commands, and what they say of jobs."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from experiments_manager.cluster.errors import ClusterError, RefusedError

_SECONDS = 60.0
"""A controller that is busy answers late; one that is away does not at all."""
_PENDING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
_RUNNING = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
_REASONS = {
    "TIMEOUT": "time limit",
    "DEADLINE": "deadline",
    "OUT_OF_MEMORY": "out of memory",
    "NODE_FAIL": "node failed",
    "BOOT_FAIL": "node failed",
    "PREEMPTED": "preempted",
}

_OWN_NAME = re.compile(r"^\w+: (?:error|fatal): ")
_MAYBE_DONE = re.compile(r"timed out|Unable to contact|connect failure", re.IGNORECASE)
"""A controller that was not reached, or did not answer, may have done what it was asked for."""
_OF_THE_SITE = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT")
_OF_THE_NODE = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")


@dataclasses.dataclass(frozen=True)
class QueuedJob:
    """A job of this user that waits or runs.

    Attributes:
        id: Its number.
        name: As it was submitted.
        runs: Whether it runs at this moment; one that waits, is suspended, or has just ended does not.
        waits: Whether it waits, for the first time or again.
        reason: Why it waits.
    """

    id: str
    name: str
    runs: bool
    waits: bool
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class JobState:
    """What the cluster says of a job.

    Attributes:
        id: Its number; `12_3` is task 3 of the array 12.
        state: `queued`, `requeued` (queued, and has run before), `running`, `finished`, `cancelled` or `failed`.
        reason: Why it waits or failed, as the cluster says; empty where there is nothing to say.
        restarts: How often it was queued again.
        node: Where it runs.
    """

    id: str
    state: str
    reason: str = ""
    restarts: int = 0
    node: str = ""


def submit(script: Path) -> str:
    """Submit a script and return the job's number.

    Raises:
        ClusterError: There is no SLURM here, or it refuses the job.
    """
    told = _call(["sbatch", "--parsable", str(script)], "submit a job", _outside_of_job(os.environ))
    return told.strip().split(";")[0]


def _outside_of_job(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what the cluster has set for the job that this process may belong to.

    A job inherits the environment that it is submitted from. What SLURM sets only for some jobs, such as the number of
    restarts or the memory, would count for the new one.
    """
    if "SLURM_JOB_ID" not in environment:
        return dict(environment)
    return {
        name: value
        for name, value in environment.items()
        if name in _OF_THE_SITE or not name.startswith("SLURM") and name not in _OF_THE_NODE
    }


def queued_jobs() -> list[QueuedJob]:
    """Return the jobs of this user that wait or run; the controller looks at these alone.

    Raises:
        ClusterError: There is no SLURM here, or it does not answer.
    """
    command = ["squeue", "--noheader", f"--user={os.getuid()}", "--format=%i|%T|%r|%j"]
    found = []
    for line in _call(command, "ask for the queue").splitlines():
        job, state, reason, name = [*line.strip().split("|", 3), "", "", ""][:4]
        if job:
            waits = state in _PENDING
            found.append(QueuedJob(job, name, state == "RUNNING", waits, reason if waits else ""))
    return found


def cancel(job: str) -> None:
    """Cancel a job, queued or running; a run that it trains stops where it can go on.

    Raises:
        ClusterError: It does not know the job, or it is another user's.
    """
    _call(["scancel", job], f"cancel job {job}")


def job_states(jobs: Iterable[str]) -> dict[str, JobState]:
    """Return what the cluster knows of jobs, by their numbers; those that it has forgotten are left out.

    Args:
        jobs: Numbers of jobs, tasks of arrays among them.

    Raises:
        ClusterError: There is no SLURM here, or it does not answer.
    """
    wanted = set(jobs)
    if not wanted:
        return {}
    found = {state.id: state for line in _query_controller(wanted) for state in _parse_job_line(line)}
    missing = wanted - set(found)
    if missing and shutil.which("sacct"):
        found |= _query_accounting(missing)
    return {job: found[job] for job in wanted if job in found}


def _query_controller(jobs: set[str]) -> list[str]:
    """Ask for one job where there is one, for all otherwise: there is no command for some."""
    command = ["scontrol", "--oneliner", "show", "job"]
    if len(jobs) == 1:
        command += sorted(jobs)
    try:
        return _call(command, "ask for jobs").splitlines()
    except ClusterError as error:
        if "Invalid job id" in str(error):
            return []
        raise


def _parse_job_line(line: str) -> list[JobState]:
    """Return the state of the job of a line; of each of its tasks where it is an array whose tasks wait together."""
    fields = dict(re.findall(r"(\w+)=(\S*)", line))
    if "JobId" not in fields:
        return []
    jobs = [fields["JobId"]]
    if "ArrayTaskId" in fields:
        jobs = [f"{fields['ArrayJobId']}_{task}" for task in _tasks_of(fields["ArrayTaskId"])]
    reason = "" if fields.get("Reason") in (None, "None") else fields["Reason"]
    restarts, node = int(fields.get("Restarts") or 0), fields.get("NodeList", "")
    return [_job_state(job, fields["JobState"], fields.get("ExitCode", ""), reason, restarts, node) for job in jobs]


def _tasks_of(text: str) -> list[int]:
    """Return the numbers in a text such as `0-3,7%2`; how many run at a time follows the percent sign."""
    tasks: list[int] = []
    for part in text.partition("%")[0].split(","):
        first, _, last = part.partition("-")
        if first.isdecimal():
            tasks += range(int(first), int(last or first) + 1)
    return tasks


def _query_accounting(jobs: set[str]) -> dict[str, JobState]:
    """Ask the accounting database, which remembers jobs that the controller has forgotten; there may be none."""
    names = "JobID,State,ExitCode,NodeList"
    command = [
        "sacct",
        "--noheader",
        "--parsable2",
        "--allocations",
        "--jobs",
        ",".join(sorted(jobs)),
        f"--format={names}",
    ]
    try:
        told = _call(command, "ask for former jobs")
    except ClusterError:
        return {}
    found = {}
    for line in told.splitlines():
        job, state, code, node = [*line.split("|"), "", "", ""][:4]
        if job in jobs:
            found[job] = _job_state(job, state.split(" ")[0], code, "", 0, node)
    return found


def _job_state(job: str, state: str, code: str, reason: str, restarts: int, node: str) -> JobState:
    node = "" if node in ("(null)", "None") else node
    if state in _PENDING:
        return JobState(job, "requeued" if restarts else "queued", reason, restarts)
    if state in _RUNNING:
        return JobState(job, "running", "", restarts, node)
    if state == "COMPLETED":
        return JobState(job, "finished", "", restarts, node)
    if state.startswith("CANCELLED"):
        return JobState(job, "cancelled", "", restarts, node)
    if reason == "OutOfMemory":
        state = "OUT_OF_MEMORY"
    exit_code, _, signal = code.partition(":")
    ended = f"signal {signal}" if signal.isdecimal() and int(signal) else f"exit code {exit_code}"
    return JobState(job, "failed", _REASONS.get(state, ended), restarts, node)


def _sentence(text: str) -> str:
    """Return what one of SLURM's commands complains of, without its name, and without the line that only repeats it."""
    lines = [_OWN_NAME.sub("", line).strip() for line in text.splitlines()]
    lines = list(dict.fromkeys(line for line in lines if line))
    causes = [line for line in lines if not line.startswith("Batch job submission failed")]
    return " ".join(causes or lines)


def _call(command: Sequence[str], what: str, environment: Mapping[str, str] | None = None) -> str:
    """Run one of SLURM's commands and return what it prints; `None` stands for the environment of this process.

    Raises:
        ClusterError: It is missing, failed, or did not answer.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            env=environment,
            start_new_session=True,  # Ctrl-C is for who called it
        )
    except FileNotFoundError as error:
        raise RefusedError(
            f"Cannot {what}: there is no {command[0]} here. Expected SLURM's commands on the PATH. Log in to a node of "
            "the cluster from which jobs are submitted, or see the script by --dry-run."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(
            f"Cannot {what}: {command[0]} did not answer within {_SECONDS:.0f} s. Try again later."
        ) from error
    if done.returncode:
        said = _sentence(done.stderr) or f"exit code {done.returncode}"
        kind = ClusterError if _MAYBE_DONE.search(said) else RefusedError
        raise kind(f"Cannot {what}: {said.rstrip('.')}.")
    return done.stdout
