"""The driver as a job sees it, which may not be there."""

import json
import os

import pytest

from experiments_manager.common.exit_codes import ExitCode
from experiments_manager.sweeps.jobs import job_process
from experiments_manager.sweeps.jobs.job_folder import Answers, JobFolder
from experiments_manager.sweeps.jobs.job_process import DriverByFiles, run_job, threads_of_job


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setattr(job_process, "_LOOK_SECONDS", 0.01)
    task = {"kind": "train", "name": "trial_00000", "trials_dir": str(tmp_path), "former_jobs": [], "patience": 0.0}
    (tmp_path / "task.json").write_text(json.dumps(task))
    return JobFolder(tmp_path)


@pytest.fixture
def driver(job):
    """Makes the driver that a job sees."""

    def make(should_stop=lambda: False, patience=60.0):
        return DriverByFiles(job, should_stop, patience)

    return make


def told(job):
    """Gives what a job has told of its trial."""
    return {name: value for name, value in job.status.items() if name in ("progress", "question", "end")}


def ask(driver, epoch=2):
    return driver.ask(epoch, (0.5,), [0.5], 1.0)


@pytest.mark.parametrize("go", [True, False])
def test_an_answer_that_a_former_start_of_the_job_had_counts_without_another_question(job, driver, go):
    job.write_answers(Answers({2: go}))
    assert ask(driver()) is go
    assert told(job) == {}


def test_a_trial_that_was_refused_has_stopped_for_good(job, driver):
    job.write_answers(Answers({2: False}))
    link = driver(should_stop=lambda: True)
    ask(link)
    link.tell(kind="ended", state="stopped")
    assert told(job) == {"end": {"kind": "ended", "state": "stopped"}}
    assert not link.was_left


def test_without_a_driver_a_question_is_waited_for_only_so_long(job, driver):
    link = driver(patience=0.0)
    assert ask(link) is False
    assert link.wants_stop()
    link.tell(kind="ended", state="stopped")
    assert told(job)["question"]["epoch"] == 2
    assert told(job)["end"]["state"] == "interrupted"


def test_a_signal_leaves_the_trial_to_the_next_start_of_the_job(job, driver):
    link = driver(should_stop=lambda: True)
    assert ask(link) is False
    link.tell(kind="ended", state="stopped")
    assert "end" not in told(job)
    assert link.was_left


def test_a_job_that_was_asked_to_stop_before_it_began_trains_nothing(job):
    job.write_answers(Answers(stop=True))
    assert run_job(job.path, lambda: False) == ExitCode.DONE
    before = job.status
    assert before["end"]["state"] == "interrupted"
    assert run_job(job.path, lambda: False) == ExitCode.DONE  # the cluster starts it again all the same
    assert job.status == before


def test_a_disk_that_is_full_for_a_moment_costs_no_answer(job, driver, monkeypatch):
    monkeypatch.setattr(job_process, "_WRITE_AGAIN", 0.0)
    write, failures = JobFolder.write_status, [OSError(28, "No space left on device")] * 2

    def fail_at_first(self, status):
        if failures:
            raise failures.pop()
        write(self, status)

    monkeypatch.setattr(JobFolder, "write_status", fail_at_first)
    driver().tell(kind="ended", state="finished")
    assert told(job) == {"end": {"kind": "ended", "state": "finished"}}


def test_signs_of_life_are_few(job, driver):
    link = driver()
    for epoch in range(1, 50):
        link.tell(kind="epoch", epoch=epoch, value=0.5)
    assert told(job) == {"progress": {"kind": "epoch", "epoch": 1, "value": 0.5}}


def test_the_lock_of_a_former_job_on_another_node_is_no_obstacle(job, tmp_path):
    lock = tmp_path / "run.lock"
    holder = dict.fromkeys(("host", "process_start", "process_space", "since", "token"), "n9")
    holder |= {"pid": 1, "job": "cluster 12"}
    for former, is_removed in ((["11"], False), (["11", "12"], True)):
        lock.write_text(json.dumps(holder))
        job_process._remove_lock_of_former_job(tmp_path, former)
        assert lock.exists() is not is_removed


def test_a_job_computes_with_the_processors_that_it_asked_for(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert threads_of_job() == 1
    monkeypatch.delenv("SLURM_CPUS_PER_TASK")
    monkeypatch.delenv("SLURM_CPUS_ON_NODE", raising=False)
    assert threads_of_job() == len(os.sched_getaffinity(0))
