"""What SLURM's commands say is read right; programs of their names stand in for them here."""

import pytest

from experiments_manager.cluster import jobs, slurm
from experiments_manager.cluster.errors import ClusterError
from experiments_manager.cluster.slurm import JobState, QueuedJob
from experiments_manager.runs import create_run


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Gives a function that makes a program on the PATH, which prints a text."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(name, printed, code=0, said=""):
        file = tmp_path / name
        (tmp_path / f"{name}.txt").write_text(printed)
        file.write_text(f"#!/bin/sh\n/bin/cat {tmp_path}/{name}.txt\necho '{said}' >&2\nexit {code}\n")
        file.chmod(0o755)

    return make


def line(**fields):
    return " ".join(
        f"{name}={value}" for name, value in {"JobId": 7, "Restarts": 0, "Reason": "None", **fields}.items()
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"JobState": "PENDING", "Reason": "Resources"}, JobState("7", "queued", "Resources")),
        ({"JobState": "PENDING", "Restarts": 2, "Reason": "BeginTime"}, JobState("7", "requeued", "BeginTime", 2)),
        ({"JobState": "RUNNING", "NodeList": "n1"}, JobState("7", "running", "", 0, "n1")),
        ({"JobState": "COMPLETED", "NodeList": "n1"}, JobState("7", "finished", "", 0, "n1")),
        ({"JobState": "CANCELLED", "NodeList": "(null)"}, JobState("7", "cancelled")),
        ({"JobState": "TIMEOUT", "NodeList": "n1"}, JobState("7", "failed", "time limit", 0, "n1")),
        ({"JobState": "OUT_OF_MEMORY", "NodeList": "n1"}, JobState("7", "failed", "out of memory", 0, "n1")),
        ({"JobState": "NODE_FAIL", "NodeList": "n1"}, JobState("7", "failed", "node failed", 0, "n1")),
        ({"JobState": "FAILED", "ExitCode": "3:0"}, JobState("7", "failed", "exit code 3")),
    ],
)
def test_the_states_of_a_job(program, fields, expected):
    program("scontrol", line(**fields) + "\n")
    assert slurm.job_states(["7"]) == {"7": expected}


def test_tasks_that_wait_together_are_told_apart(program):
    told = [line(JobId=12, ArrayJobId=12, ArrayTaskId="1-2,5%2", JobState="PENDING")]
    told += [line(JobId=13, ArrayJobId=12, ArrayTaskId=0, JobState="RUNNING")]
    program("scontrol", "\n".join(told))
    found = slurm.job_states(["12_0", "12_2", "12_5", "12_9"])
    assert {job: state.state for job, state in found.items()} == {"12_0": "running", "12_2": "queued", "12_5": "queued"}


def test_accounting_is_asked_for_jobs_that_the_controller_has_forgotten(program):
    program("scontrol", "", 1, "slurm_load_jobs error: Invalid job id specified")
    program("sacct", "7|CANCELLED by 1000|0:15|n2\n8|FAILED|1:0|n2\n")
    assert slurm.job_states(["7"]) == {"7": JobState("7", "cancelled", "", 0, "n2")}


def test_the_queue_tells_what_runs_and_what_waits(program):
    lines = ["7|RUNNING|None|line-1", "8|PENDING|Resources|a|b", "9|COMPLETING|None|c", "10|SUSPENDED|None|d"]
    program("squeue", "\n".join(lines) + "\n")
    assert slurm.queued_jobs() == [
        QueuedJob("7", "line-1", runs=True, waits=False),
        QueuedJob("8", "a|b", runs=False, waits=True, reason="Resources"),
        QueuedJob("9", "c", runs=False, waits=False),
        QueuedJob("10", "d", runs=False, waits=False),
    ]


def test_a_machine_without_slurm_and_a_refusal_are_one_sentence(program, tmp_path):
    with pytest.raises(ClusterError, match="there is no sbatch here"):
        slurm.submit(tmp_path / "job.sh")
    program("sbatch", "", 1, "sbatch: error: invalid partition specified: gpux")
    with pytest.raises(ClusterError, match="Cannot submit a job: invalid partition specified: gpux"):
        slurm.submit(tmp_path / "job.sh")
    program("sbatch", "123;cluster\n")
    assert slurm.submit(tmp_path / "job.sh") == "123"


@pytest.mark.parametrize(
    ("state", "said"), [("COMPLETED", "finished"), ("CANCELLED", "cancelled"), (None, "forgotten")]
)
def test_a_job_that_has_ended_is_not_cancelled_again(program, tmp_path, state, said):
    run = create_run(tmp_path, "it")
    run.update(job={"scheduler": "slurm", "id": "7", "folder": str(tmp_path)})
    line = f"JobId=7 JobState={state} ExitCode=0:0 Restarts=0 Reason=None"
    program("scontrol", line if state else "", 0 if state else 1, "" if state else "Invalid job id specified")
    program("sacct", "", 1, "no accounting")
    program("scancel", "", 1, "it must not be called")
    job, ended = jobs.cancel(run)
    assert job == "7"
    assert said in ended
    assert "cancelled" not in run.manifest["job"]
