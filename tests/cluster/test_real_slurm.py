"""Jobs in a real SLURM: each ends with the bits of a run that was never interrupted."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments_manager.runs import open_run
from experiments_manager.training.state.checkpoints import read_latest
from tests.helpers import slurm

pytestmark = [pytest.mark.slow]
SETTINGS = """
import os
import time

import keras
import numpy as np

session_name = "line"
hparams = {"rate": 0.01, "slow": ""}
epochs = 40
batch_size = 8
tensorboard = False
figures = False
export = False
early_stopping_patience = None
loss = "mean_squared_error"
learning_rate = hparams["rate"]


def dataset(split):
    x = np.random.default_rng(1).normal(size=(64, 3)).astype("float32")
    return x, x @ np.ones((3, 1), "float32")


def model():
    return keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])


class Slow(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch > 2 and os.path.exists(hparams["slow"]):  # for two minutes, unless somebody takes the file away
            time.sleep(3)


def callbacks():
    return [Slow()]
"""


@pytest.fixture(scope="module")
def folder(cluster, tmp_path_factory):
    place = tmp_path_factory.mktemp("jobs")
    (place / "mysettings_line.py").write_text(SETTINGS)
    return place


@pytest.fixture
def slow(folder):
    """A file: while it is there, epochs of jobs that are told of it take three seconds."""
    file = folder / "slow"
    file.touch()
    yield file
    file.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def undisturbed(folder):
    """The weights of a run that nobody interrupted."""
    done = subprocess.run(
        [sys.executable, "-m", "experiments_manager", "train", "mysettings_line.py", "--run-name", "whole", "--quiet"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return weights(folder / "experiments" / "whole")


def weights(run):
    _, snapshot = read_latest(open_run(run).checkpoints_dir)
    return {name: np.asarray(value).tobytes() for name, value in snapshot.tensors.items() if "callback" not in name}


def submit(folder, *options, command=("train", "mysettings_line.py")):
    """Submits, and gives the job's number and the run folders."""
    done = subprocess.run(
        [sys.executable, "-m", "experiments_manager", "submit", *options, "--json", "--", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return told["job"], [Path(run) for run in told["runs"]]


def experiments_manager(folder, *words):
    return subprocess.run(
        [sys.executable, "-m", "experiments_manager", *words], cwd=folder, capture_output=True, text=True, timeout=120
    )


def state_of(folder, run):
    told = json.loads(experiments_manager(folder, "runs", str(folder), "--json").stdout)
    return next(row["state"] for row in told["runs"] if row["path"] == str(run))


def log_of(run):
    return "".join(path.read_text() for path in sorted((run / "job").glob("slurm-*.out")))


def epochs_done(run):
    return len((run / "metrics.csv").read_text().splitlines()) - 1 if (run / "metrics.csv").exists() else 0


def test_a_job_that_is_warned_of_its_time_limit_is_queued_again_and_ends_with_the_same_bits(folder, slow, undisturbed):
    words = ("train", "mysettings_line.py", "--set", f"slow={slow}")
    job, (run,) = submit(folder, "--time", "30", "--warning", "110", command=words)
    slurm.wait_for(lambda: epochs_done(run) > 2)
    subprocess.run(["scontrol", "update", f"jobid={job}", "timelimit=2"], check=True)  # so it is warned at once
    slurm.wait_for(lambda: int(slurm.job(job).get("Restarts") or 0) >= 1, 120)
    slow.unlink()
    subprocess.run(["scontrol", "update", f"jobid={job}", "timelimit=30"], check=True)
    assert 2 < epochs_done(run) < 40
    assert slurm.wait_for_end(job, 180) == "COMPLETED", log_of(run)
    assert slurm.manifest(run)["state"] == "finished"
    assert slurm.manifest(run)["resumed"]
    assert weights(run) == undisturbed


def test_a_job_that_is_preempted_goes_on_when_the_other_is_done(folder, slow, undisturbed):
    words = ("train", "mysettings_line.py", "--set", f"slow={slow}")
    job, (run,) = submit(
        folder, "--partition", "low", "--nodes", "1", "--cpus", "2", "--sbatch=--nodelist=n1", command=words
    )
    slurm.wait_for(lambda: epochs_done(run) > 2)
    other, _ = submit(folder, "--partition", "high", "--sbatch=--nodelist=n1", "--cpus", "2", command=("runs", "."))
    assert slurm.wait_for_end(other) == "COMPLETED"
    slow.unlink()
    assert slurm.wait_for_end(job) == "COMPLETED", log_of(run)
    assert "USR1" in log_of(run)
    assert len(slurm.manifest(run)["resumed"]) == 1
    assert weights(run) == undisturbed


def test_a_job_whose_node_fails_starts_at_once_on_another(folder, slow, undisturbed):
    words = ("train", "mysettings_line.py", "--set", f"slow={slow}")
    job, (run,) = submit(folder, "--cpus", "1", command=words)
    slurm.wait_for(lambda: epochs_done(run) > 2)
    node = slurm.job(job)["NodeList"]
    subprocess.run(["scontrol", "update", f"nodename={node}", "state=down", "reason=test"], check=True)
    try:
        slow.unlink()
        slurm.wait_for(lambda: slurm.job(job).get("NodeList") not in (node, "(null)"))
        assert slurm.wait_for_end(job) == "COMPLETED", log_of(run)
    finally:
        subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], check=False)
    assert weights(run) == undisturbed


def test_the_tasks_of_an_array_are_runs_of_their_own(folder, undisturbed):
    job, runs = submit(folder, "--array", "rate=0.01,0.02", command=("train", "mysettings_line.py", "--quiet"))
    assert len(set(runs)) == 2
    assert [slurm.wait_for_end(f"{job}_{task}") for task in (0, 1)] == ["COMPLETED"] * 2, log_of(runs[0])
    assert [slurm.manifest(run)["hparams"]["rate"] for run in runs] == [0.01, 0.02]
    assert weights(runs[0]) == undisturbed
    assert experiments_manager(folder, "logs", str(runs[0])).stdout == log_of(runs[0])


def test_a_cancelled_job_is_not_queued_again_and_its_run_can_go_on(folder, slow, undisturbed):
    words = ("train", "mysettings_line.py", "--set", f"slow={slow}")
    job, (run,) = submit(folder, command=words)
    slurm.wait_for(lambda: epochs_done(run) > 2)
    assert state_of(folder, run) == "running"
    assert experiments_manager(folder, "cancel", str(run)).returncode == 0
    assert slurm.wait_for_end(job) == "CANCELLED"
    slurm.wait_for(lambda: slurm.manifest(run)["state"] == "interrupted")
    assert state_of(folder, run) == "cancelled"
    assert slurm.job(job).get("Restarts") == "0"
    done = experiments_manager(folder, "resume", str(run), "--set", "slow=", "--quiet")
    assert done.returncode == 0, done.stderr
    assert weights(run) == undisturbed


def test_code_that_is_edited_while_a_job_waits_does_not_change_it(folder, undisturbed):
    job, (run,) = submit(folder, "--sbatch=--hold")
    assert state_of(folder, run) == "queued"
    file = folder / "mysettings_line.py"
    file.write_text(SETTINGS.replace("epochs = 40", "epochs = 1"))
    try:
        subprocess.run(["scontrol", "release", job], check=True)
        assert slurm.wait_for_end(job) == "COMPLETED", log_of(run)
    finally:
        file.write_text(SETTINGS)
    assert weights(run) == undisturbed


def test_a_job_that_fails_is_told_with_its_reason(folder):
    job, (run,) = submit(folder, command=("train", "mysettings_line.py", "--set", "rate=1e30", "--set", "epochs=3"))
    assert slurm.wait_for_end(job) == "FAILED"
    assert state_of(folder, run) == "failed"
    assert "NaN or infinite" in experiments_manager(folder, "logs", str(run), "--follow").stdout


def test_a_job_that_takes_more_memory_than_it_asked_for_is_told_as_that(folder):
    """TensorFlow alone takes more than 60 MB."""
    job, (run,) = submit(folder, "--mem", "60M")
    assert slurm.wait_for_end(job) in ("FAILED", "OUT_OF_MEMORY")
    told = json.loads(experiments_manager(folder, "runs", str(folder), "--json").stdout)
    row = next(row for row in told["runs"] if row["path"] == str(run))
    assert (row["state"], row["problem"]) == ("failed", f"{run}: job {job} failed: out of memory.")


def test_a_node_that_is_drained_ends_its_job_and_gets_no_other(folder, slow, undisturbed):
    job, (run,) = submit(folder, "--cpus", "1", command=("train", "mysettings_line.py", "--set", f"slow={slow}"))
    slurm.wait_for(lambda: epochs_done(run) > 2)
    node = slurm.job(job)["NodeList"]
    subprocess.run(["scontrol", "update", f"nodename={node}", "state=drain", "reason=test"], check=True)
    try:
        other, (second,) = submit(folder, "--cpus", "1")
        assert slurm.wait_for_end(other) == "COMPLETED", log_of(second)
        assert slurm.job(other)["NodeList"] != node
        slow.unlink()
        assert slurm.wait_for_end(job) == "COMPLETED", log_of(run)
        assert slurm.job(job)["Restarts"] == "0"
    finally:
        subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], check=False)
    assert weights(run) == weights(second) == undisturbed


def test_a_run_that_never_ends_is_queued_again_no_more_often_than_was_said(folder, slow):
    words = ("train", "mysettings_line.py", "--set", f"slow={slow}")
    job, (run,) = submit(folder, "--max-requeues", "0", command=words)
    slurm.wait_for(lambda: epochs_done(run) > 2)
    subprocess.run(["scancel", "--signal=USR1", "--batch", job], check=True)
    assert slurm.wait_for_end(job) == "FAILED"
    assert "queued again 0 times (--max-requeues)" in log_of(run)
    assert slurm.manifest(run)["state"] == "interrupted"


def tasks_of(job):
    """Gives the training processes of a job's step by the numbers of their tasks."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = dict(
                word.split(b"=", 1) for word in (place / "environ").read_bytes().split(b"\0") if b"=" in word
            )
            is_training = b"experiments_manager\0resume" in (place / "cmdline").read_bytes()
            if is_training and variables.get(b"SLURM_JOB_ID") == job.encode() and b"SLURM_STEP_NUM_TASKS" in variables:
                found[int(variables[b"SLURM_PROCID"])] = int(place.name)
    return found


def test_a_training_on_two_nodes_of_which_a_task_is_killed_is_queued_again_and_ends_with_the_same_bits(folder, slow):
    together = ("--set", "strategy=MultiWorkerMirroredStrategy", "--set", "epochs=12")
    options = ("--nodes", "2", "--cpus", "1")
    whole, (other,) = submit(folder, *options, command=("train", "mysettings_line.py", *together))
    job, (run,) = submit(folder, *options, command=("train", "mysettings_line.py", *together, "--set", f"slow={slow}"))
    slurm.wait_for(lambda: (run / "checkpoints" / "latest").exists() and epochs_done(run) > 2, 240)
    assert sorted(tasks := tasks_of(job)) == [0, 1]
    os.kill(tasks[1], signal.SIGKILL)
    slurm.wait_for(lambda: int(slurm.job(job).get("Restarts") or 0) == 1, 120)
    slow.unlink()
    assert [slurm.wait_for_end(one, 300) for one in (whole, job)] == ["COMPLETED"] * 2, log_of(run)
    assert "Worker 1" in log_of(run) and "All processes of this training stop" in log_of(run)
    assert (slurm.manifest(run)["state"], slurm.manifest(run)["workers"]) == ("finished", 2)
    assert weights(run) == weights(other)
