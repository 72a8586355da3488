"""Jobs of a sweep: how many there are, how they end, and how the next driver takes them up."""

import shutil

import pytest

from experiments_manager.cluster.errors import ClusterError
from experiments_manager.cluster.job_options import JobOptions
from experiments_manager.sweeps.errors import SweepError
from experiments_manager.sweeps.jobs.job_folder import Answers, JobFolder
from experiments_manager.sweeps.jobs.job_pool import JobPool, Pace
from experiments_manager.sweeps.jobs.job_queue import JobQueue, options_of_jobs, refuse_jobs_in_queue
from experiments_manager.sweeps.sweep_file import load_sweep_file
from tests.helpers.sweep_files import write_sweep_files

AT_ONCE = Pace(files=0, queue=0, soon=0, refused=0, settle=0)


class Sweep:
    """A sweep's folder, and the pools of the drivers that work on it one after another."""

    def __init__(self, folder):
        self.folder, self.journal = folder, {}
        folder.mkdir()

    def pool(self, parallel=2, **options):
        queue = JobQueue(self.folder, JobOptions())
        return JobPool(queue, parallel, known=self.journal, **{"pace": AT_ONCE, **options})

    def task(self, trial, **changes):
        return {"name": f"trial_{trial:05d}", "columns": ["loss"], "overrides": {"rate": trial}, "asked": 0, **changes}

    def tasks(self, *trials, **changes):
        return {trial: self.task(trial, **changes) for trial in trials}

    def note(self, told):
        if told:
            self.journal[told["folder"]] = told["job"]

    def start(self, pool, trial):
        told = pool.start(trial, self.task(trial))
        self.note(told)
        return told["job"]

    def reattach(self, pool, *trials, **changes):
        taken = pool.reattach(self.tasks(*trials, **changes))
        for told in taken.values():
            self.note(told)
        return sorted(taken)

    def job(self, trial, n=1):
        return JobFolder(self.folder / "jobs" / f"trial_{trial:05d}" / str(n))

    def tell(self, trial, n=1, **status):
        """Tells what the job of a trial would tell."""
        job = self.job(trial, n)
        job.write_status({**job.status, **status})

    def answers(self, trial, n=1):
        return self.job(trial, n).answers


def poll(pool):
    """Gives what is new, but that jobs wait."""
    return [(trial, message) for trial, message in pool.poll(0) if message["kind"] != "queued"]


@pytest.fixture
def sweep(tmp_path, cluster):
    return Sweep(tmp_path / "line")


TRAINED = {"kind": "epoch", "epoch": 1, "value": 0.7}
FINISHED = {"kind": "ended", "state": "finished", "values": [0.5], "epochs": 3}
ASKED = {"kind": "asked", "epoch": 2, "values": [0.5], "curve": [], "seconds": 1.0}


def test_a_job_that_begins_anew_without_what_it_told_before_tells_nothing_twice(sweep):
    pool = sweep.pool()
    sweep.start(pool, 0)
    sweep.tell(0, progress=TRAINED)
    assert poll(pool) == [(0, TRAINED)]
    sweep.job(0).write_status({"job": "1"})  # the file server was silent when it began
    assert poll(pool) == []
    assert pool.running == [0]


def test_a_slot_is_free_again_when_the_job_has_left_the_queue_and_its_last_word_comes_then(sweep, cluster):
    pool = sweep.pool(parallel=2)
    first, _ = sweep.start(pool, 0), sweep.start(pool, 1)
    assert pool.free == 0
    cluster.set(first, "RUNNING")
    sweep.tell(0, job=first, progress=TRAINED, end=FINISHED)
    assert poll(pool) == [(0, TRAINED)]
    cluster.set(first, "COMPLETING")
    assert poll(pool) == []
    assert (pool.running, pool.free) == ([0, 1], 0)
    cluster.set(first, "COMPLETED")
    assert poll(pool) == [(0, FINISHED)]
    assert (pool.running, pool.free) == ([1], 1)


def test_what_a_job_waits_for_is_told_when_it_changes(sweep, cluster):
    pool = sweep.pool()
    job = sweep.start(pool, 0)
    found = []
    for state, reason in (("PENDING", "Priority"), ("PENDING", "Priority"), ("PENDING", "Resources"), ("RUNNING", "")):
        cluster.set(job, state, reason=reason)
        found += [message["reason"] for _, message in [*pool.poll(0), *pool.poll(0)]]
    assert found == ["Priority", "Resources"]


def test_a_question_is_answered_once(sweep):
    pool = sweep.pool()
    sweep.start(pool, 0)
    sweep.tell(0, question=ASKED)
    assert poll(pool) == [(0, ASKED)]
    pool.answer(0, go=True)
    sweep.tell(0, question=ASKED)  # again, after the cluster has started the job anew
    assert poll(pool) == []
    assert sweep.answers(0) == Answers({2: True})


@pytest.mark.parametrize(
    ("state", "details", "reason", "outside"),
    [
        ("CANCELLED", {}, "its job 1 was cancelled", False),
        ("OUT_OF_MEMORY", {}, "its job 1 failed: out of memory", False),
        ("NODE_FAIL", {}, "its job 1 failed: node failed", True),
        ("PREEMPTED", {}, "its job 1 failed: preempted", True),
        ("TIMEOUT", {}, "its job 1 failed: time limit", False),
        ("FAILED", {"code": "139:0"}, "its job 1 failed: exit code 139 (see ", False),
        ("FAILED", {"code": "75:0"}, "its job 1 was interrupted", True),
        ("FAILED", {"code": "75:0", "restarts": 20}, "its job 1 was queued again 20 times (max_requeues)", False),
        ("COMPLETED", {}, "its job 1 has ended without a word", True),
    ],
)
def test_how_a_job_that_has_not_told_its_end_has_ended(sweep, cluster, state, details, reason, outside):
    pool = sweep.pool()
    job = sweep.start(pool, 0)
    cluster.set(job, "RUNNING")
    assert poll(pool) == []
    cluster.set(job, state, **details)
    [(trial, message)] = poll(pool)
    assert (trial, message["kind"], message["outside"]) == (0, "died", outside)
    assert message["reason"].startswith(reason)
    assert pool.running == []


def test_a_job_that_the_cluster_has_forgotten_goes_on_in_another(sweep, cluster):
    pool = sweep.pool()
    cluster.forget(sweep.start(pool, 0))
    [(_, message)] = poll(pool)
    assert message["outside"]
    assert "does not know how" in message["reason"]
    assert sweep.start(pool, 0)
    assert sweep.job(0, 2).task["former_jobs"] == ["1"]


def test_a_job_that_trained_until_its_time_limit_goes_on_in_another(sweep, cluster):
    pool = sweep.pool()
    job = sweep.start(pool, 0)
    sweep.tell(0, progress=TRAINED)
    poll(pool)
    cluster.set(job, "TIMEOUT")
    [(_, message)] = poll(pool)
    assert message["outside"]


def test_a_job_that_stays_in_the_queue_after_its_last_word_is_cancelled(sweep, cluster):
    pool = sweep.pool(pace=Pace(0, 0, 0, 0, settle=0, linger=-1))
    cluster.set(sweep.start(pool, 0), "RUNNING")
    sweep.tell(0, end=FINISHED)
    assert poll(pool) + poll(pool) == [(0, FINISHED)]
    assert cluster.cancelled == ["1"]


def test_memory_that_only_the_output_of_a_job_tells_of_is_its_reason(sweep, cluster):
    pool = sweep.pool()
    job = sweep.start(pool, 0)
    (sweep.job(0).path / f"slurm-{job}.out").write_text(
        "slurmstepd: error: Detected 1 oom_kill event in step 1.batch\n"
    )
    cluster.set(job, "FAILED", code="9:0")
    [(_, message)] = poll(pool)
    assert message["reason"] == f"its job {job} failed: out of memory"


def test_a_job_that_waits_or_is_queued_again_does_not_run_out_of_time(sweep, cluster):
    pool = sweep.pool(timeout=0.0)
    job = sweep.start(pool, 0)
    for state in ("PENDING", "PENDING"):
        cluster.set(job, state)
        assert poll(pool) == []
    assert cluster.cancelled == []
    cluster.set(job, "RUNNING")
    found = [message for _ in range(3) for message in poll(pool)]
    assert cluster.cancelled == [job]
    assert found == [(0, {"kind": "died", "reason": "no progress for 0 s (trial_timeout)", "outside": False})]


def test_a_job_that_the_cluster_refuses_is_one_error_and_nothing_is_lost(sweep, cluster):
    pool = sweep.pool()
    cluster.be("refusal", "sbatch: error: invalid partition specified: gpux")
    with pytest.raises(ClusterError, match=r"invalid partition specified: gpux.* go on by --resume"):
        pool.start(0, sweep.task(0))
    cluster.be_well()
    again = sweep.pool()
    assert sweep.reattach(again, 0) == []
    assert sweep.start(again, 0) == "1"
    assert cluster.jobs == {"1": "PENDING"}


def test_a_refusal_while_others_run_is_tried_again(sweep, cluster, capsys):
    pool = sweep.pool(pace=Pace(0, 0, 0, refused=1000.0))
    sweep.start(pool, 0)
    cluster.be("refusal", "sbatch: error: Job violates accounting/QOS policy")
    assert pool.start(1, sweep.task(1)) is None
    assert (pool.running, pool.free) == ([0], 0)
    assert "It is tried again while other jobs" in capsys.readouterr().err
    sweep.tell(0, end=FINISHED)
    cluster.set("1", "COMPLETED")
    assert poll(pool) == [(0, FINISHED)]
    assert pool.free == 2


def test_a_job_that_was_queued_although_the_answer_was_lost_is_not_submitted_twice(sweep, cluster):
    pool = sweep.pool()
    sweep.start(pool, 0)
    cluster.be("silence")
    assert pool.start(1, sweep.task(1)) is None
    cluster.be_well()
    assert sweep.start(pool, 1) == "2"
    assert cluster.queued == ["1", "2"]


def test_the_next_driver_takes_up_jobs_that_wait_run_or_have_ended(sweep, cluster):
    before = sweep.pool(parallel=3)
    for trial in range(3):
        sweep.start(before, trial)
    cluster.set("2", "RUNNING")
    sweep.tell(1, progress=TRAINED)
    sweep.tell(2, end=FINISHED)
    cluster.set("3", "COMPLETED")
    pool = sweep.pool(parallel=3)
    assert sweep.reattach(pool, 0, 1, 2, 3) == [0, 1, 2]
    assert poll(pool) == [(1, TRAINED), (2, FINISHED)]
    assert (pool.running, pool.free) == ([0, 1], 1)
    assert len(cluster.jobs) == 3


def test_a_job_whose_driver_died_before_it_wrote_the_number_down_is_found_by_its_name(sweep, cluster):
    sweep.pool().start(0, sweep.task(0))  # and nothing of it in the journal
    pool = sweep.pool()
    assert sweep.reattach(pool, 0) == [0]
    assert sweep.journal == {"trial_00000/1": "1"}
    assert pool.running == [0]


def test_so_is_one_that_has_ended_since(sweep, cluster):
    sweep.pool().start(0, sweep.task(0))
    sweep.tell(0, job="1", end=FINISHED)
    cluster.set("1", "COMPLETED")
    pool = sweep.pool()
    assert sweep.reattach(pool, 0) == [0]
    assert poll(pool) == [(0, FINISHED)]


def test_one_that_never_came_into_the_queue_ends_at_once_should_it_come_yet(sweep, cluster):
    sweep.pool().start(0, sweep.task(0))
    cluster.forget("1")
    pool = sweep.pool()
    assert sweep.reattach(pool, 0) == []
    assert sweep.answers(0) == Answers(stop=True)
    sweep.start(pool, 0)
    assert sweep.job(0, 2).path.is_dir()


def test_more_jobs_than_the_next_driver_may_have_leave_no_slot_free(sweep):
    before = sweep.pool(parallel=3)
    for trial in range(3):
        sweep.start(before, trial)
    pool = sweep.pool(parallel=1)
    assert sweep.reattach(pool, 0, 1, 2) == [0, 1, 2]
    assert pool.free == 0


def test_a_job_whose_trial_has_ended_is_asked_to_stop_and_waited_for(sweep, cluster):
    """Its driver was killed after it had noted the end, and before it told."""
    before = sweep.pool()
    cluster.set(sweep.start(before, 0), "RUNNING")
    sweep.tell(0, question=ASKED)
    pool = sweep.pool(parallel=1)
    assert sweep.reattach(pool) == []
    assert (pool.running, pool.free) == ([0], 0)
    assert sweep.answers(0) == Answers(stop=True)
    sweep.tell(0, end={"kind": "ended", "state": "interrupted"})
    cluster.set("1", "COMPLETED")
    assert poll(pool) == []
    assert (pool.running, pool.free) == ([], 1)


def test_a_job_that_trains_other_settings_than_the_sweep_wants_now_is_ended(sweep, cluster):
    sweep.start(sweep.pool(), 0)
    pool = sweep.pool()
    assert sweep.reattach(pool, 0, columns=["val_loss"]) == []
    assert poll(pool) == []
    assert cluster.cancelled == ["1"]
    assert sweep.answers(0) == Answers(stop=True)


def test_an_answer_that_was_lost_with_its_driver_is_given_by_the_next(sweep):
    before = sweep.pool()
    sweep.start(before, 0)
    sweep.tell(0, question=ASKED)
    poll(before)
    pool = sweep.pool()
    sweep.reattach(pool, 0)
    assert poll(pool) == [(0, ASKED)]
    pool.answer(0, go=False)
    assert sweep.answers(0) == Answers({2: False})


def test_a_driver_that_is_asked_to_stop_cancels_what_waits_and_asks_the_rest(sweep, cluster):
    pool = sweep.pool()
    sweep.start(pool, 0), sweep.start(pool, 1)
    cluster.set("1", "RUNNING")
    pool.ask_to_stop()
    assert cluster.cancelled == ["2"]
    assert [sweep.answers(trial) for trial in (0, 1)] == [Answers(stop=True)] * 2
    sweep.tell(0, end={"kind": "ended", "state": "interrupted"})
    cluster.set("1", "COMPLETED")
    assert poll(pool) == [(0, {"kind": "ended", "state": "interrupted"})]
    assert (pool.running, pool.free) == ([], 0)
    again = sweep.pool()
    assert sweep.reattach(again, 0, 1) == []


def test_ahead_of_the_drivers_own_time_limit_the_jobs_go_on(sweep, cluster, capsys):
    pool = sweep.pool(goes_on=lambda: True)
    sweep.start(pool, 0)
    pool.ask_to_stop()
    assert pool.running == []
    assert cluster.queued == ["1"]
    assert sweep.answers(0) == Answers()
    assert "1 jobs of the sweep are in the queue and go on; --resume takes them up." in capsys.readouterr().err


def test_a_cluster_that_is_away_for_a_while_ends_nothing(sweep, cluster, capsys):
    pool = sweep.pool()
    sweep.start(pool, 0)
    cluster.be("away")
    sweep.tell(0, progress=TRAINED)
    assert poll(pool) == [(0, TRAINED)]
    assert poll(pool) == []
    assert pool.running == [0]
    assert capsys.readouterr().err.count("Unable to contact slurm controller") == 1


def test_a_copy_of_a_sweep_leaves_the_jobs_of_the_original_alone(sweep, cluster, tmp_path):
    sweep.pool().start(0, sweep.task(0))
    shutil.copytree(sweep.folder, tmp_path / "copy" / "line")
    copy = Sweep.__new__(Sweep)
    copy.folder, copy.journal = tmp_path / "copy" / "line", {}
    assert copy.reattach(copy.pool(), 0) == []
    assert cluster.cancelled == []


def test_what_belongs_to_the_drivers_own_job_does_not_get_into_the_others(sweep, cluster, monkeypatch):
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "20", "SLURM_MEM_PER_NODE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/slurm.conf")
    sweep.start(sweep.pool(), 0)
    assert {name for name in cluster.environment if name.startswith("SLURM")} == {"SLURM_CONF"}


def test_trials_are_not_run_here_as_well_while_they_are_jobs(sweep, cluster):
    folder = sweep.folder
    refuse_jobs_in_queue(folder, sweep.journal)
    sweep.start(sweep.pool(), 0)
    with pytest.raises(SweepError, match=r"Jobs 1 of the sweep in .* are in the queue"):
        refuse_jobs_in_queue(folder, sweep.journal)
    cluster.set("1", "COMPLETED")
    refuse_jobs_in_queue(folder, sweep.journal)


def test_options_come_from_the_site_the_settings_the_sweep_and_the_command_line(cluster, tmp_path):
    (tmp_path / "config/experiments_manager").mkdir(parents=True)
    (tmp_path / "config/experiments_manager/cluster.toml").write_text('partition = "a"\ntime = "1:00:00"\nmem = "1G"\n')
    file = write_sweep_files(tmp_path / "files", "cluster = {'mem': '3G', 'cpus': 3}\n")
    sweep = load_sweep_file(file)
    options = options_of_jobs(sweep, {"time": "2:00:00", "mem": "2G", "cpus": 2}, {"cpus": 4})
    assert (options.partition, options.time, options.mem, options.cpus) == ("a", "2:00:00", "3G", 4)
    with pytest.raises(ClusterError, match=r"--cluster: partitio is unknown. Did you mean `partition`"):
        options_of_jobs(sweep, {}, {"partitio": "x"})
    with pytest.raises(ClusterError, match=r"one node. Expected nodes = 1, got 2"):
        options_of_jobs(sweep, {"nodes": 2}, {})


def test_a_job_that_an_earlier_release_submitted_is_cancelled_and_its_trial_goes_on_in_another(sweep, cluster):
    sweep.start(sweep.pool(), 0)
    cluster.set("1", "RUNNING")
    (sweep.job(0).path / "status.json").unlink()  # it wrote messages.jsonl
    pool = sweep.pool()
    assert sweep.reattach(pool, 0) == []
    assert cluster.cancelled == ["1"]
    assert poll(pool) == []
    assert sweep.start(pool, 0) == "2"
    assert sweep.job(0, 2).task["former_jobs"] == ["1"]
