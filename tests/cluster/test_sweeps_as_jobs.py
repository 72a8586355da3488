"""Sweeps whose trials are jobs of a real SLURM: the same trials as on one machine, whatever becomes of the driver."""

import csv
import json
import signal
import subprocess
import sys

import pytest

from experiments_manager.sweeps.state.journal import read_journal
from tests.helpers import slurm
from tests.helpers.sweep_files import write_sweep_files

pytestmark = [pytest.mark.slow]
SETTINGS = """
import time
from pathlib import Path

epochs = 4


class Hold(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        while epoch == 1 and Path({hold!r}).exists():
            time.sleep(0.1)


def callbacks():
    return [Hold()]
"""


class Sweep:
    """A sweep in a folder of its own."""

    def __init__(self, folder, trials, further=""):
        self.folder, self.hold, self.sweep_dir = folder, folder / "hold", folder / "sweeps" / "line"
        sweep = f"max_trials = {trials}\n{further}"
        write_sweep_files(folder, sweep=sweep, settings=SETTINGS.format(hold=str(self.hold)))

    def command(self, *options):
        return [sys.executable, "-m", "experiments_manager", "sweep", "mysweep_line.py", *options]

    def run(self, *options):
        done = subprocess.run(self.command(*options), cwd=self.folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done

    def start(self, *options):
        with (self.folder / "output.log").open("ab") as log:
            return subprocess.Popen(self.command(*options), cwd=self.folder, stdout=log, stderr=log)

    @property
    def rows(self):
        with (self.sweep_dir / "trials.csv").open() as stream:
            return [{name: cell for name, cell in row.items() if name != "seconds"} for row in csv.DictReader(stream)]

    @property
    def outcome(self):
        """Gives what must not depend on where trials run: their points, states and values, and all their epochs."""
        rows = self.rows
        return rows, [(self.sweep_dir / "trials" / row["run"] / "metrics.csv").read_bytes() for row in rows]

    def events(self, kind):
        return [event for event in read_journal(self.sweep_dir / "journal.jsonl") if event["event"] == kind]

    @property
    def held(self):
        """Gives the trials that wait at the end of their second epoch."""
        return [file for file in self.sweep_dir.glob("trials/*/metrics.csv") if len(file.read_text().splitlines()) > 1]


def wait_for(condition):
    """Waits as long as a busy machine may take to import TensorFlow several times at once."""
    return slurm.wait_for(condition, seconds=300)


def queue_of_trials():
    told = subprocess.run(["squeue", "--noheader", "--format=%j"], capture_output=True, text=True, check=True).stdout
    return [name for name in told.split() if "trial_" in name]


def test_one_by_one_jobs_train_and_end_early_the_same_trials_as_processes(cluster, tmp_path):
    further = "prune = {'method': 'asha', 'min_epochs': 2, 'reduction': 2}"
    local, jobs = (Sweep(tmp_path / name, 2, further) for name in ("local", "jobs"))
    local.run()
    jobs.run("--executor", "slurm", "--cluster", "cpus=2")
    assert jobs.outcome == local.outcome
    assert {row["epochs"] for row in jobs.rows} == {"2", "4"}
    assert queue_of_trials() == []


def test_a_driver_that_is_killed_then_a_job_and_then_queued_again_loses_and_doubles_nothing(cluster, tmp_path):
    further = "algorithm = 'random'\nparallel = 2"
    local, jobs = (Sweep(tmp_path / name, 6, further) for name in ("local", "jobs"))
    local.run()
    jobs.hold.touch()
    options = ("--executor", "slurm", "--cluster", "cpus=1", "--resume")
    with jobs.start(*options) as driver:
        wait_for(lambda: driver.poll() is not None or len(jobs.held) == 2)
        driver.send_signal(signal.SIGKILL)
    assert driver.returncode == -signal.SIGKILL, (jobs.folder / "output.log").read_text()
    assert len(queue_of_trials()) == 2

    words = [sys.executable, "-m", "experiments_manager", "submit", "--cpus", "1", "--json", "--"]
    told = subprocess.run([*words, *jobs.command(*options)[3:]], cwd=jobs.folder, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    number = json.loads(told.stdout)["job"]
    wait_for(lambda: len(jobs.events("opened")) == 2)
    subprocess.run(["scancel", "--signal=USR1", "--batch", number], check=True)
    wait_for(lambda: len(jobs.events("opened")) == 3)
    assert slurm.job(number)["Restarts"] == "1"
    assert len(queue_of_trials()) == 2
    trial = jobs.events("submitted")[0]["job"]
    subprocess.run(["scancel", "--signal=USR1", "--batch", trial], check=True)
    jobs.hold.unlink()

    most = []
    ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
    wait_for(lambda: most.append(len(queue_of_trials())) or slurm.job(number)["JobState"] in ended)
    log = "".join(file.read_text() for file in jobs.folder.glob("jobs/*/slurm-*.out"))
    assert slurm.job(number)["JobState"] == "COMPLETED", log
    assert max(most) <= 2
    assert slurm.job(trial)["Restarts"] == "1"
    assert jobs.outcome == local.outcome
    assert sorted(event["folder"] for event in jobs.events("submitted")) == [f"trial_{n:05d}/1" for n in range(6)]
    assert len(list(jobs.sweep_dir.glob("jobs/*/*/task.json"))) == 6


def test_a_job_that_is_refused_is_one_error_and_one_that_somebody_cancels_a_failed_trial(cluster, tmp_path):
    sweep = Sweep(tmp_path / "sweep", 1)
    command = sweep.command("--executor", "slurm", "--cluster", "partition=gpux")
    done = subprocess.run(command, cwd=sweep.folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "invalid partition" in done.stderr
    assert "Nothing is lost" in done.stderr
    assert "Traceback" not in done.stderr

    sweep.hold.touch()
    with sweep.start("--executor", "slurm", "--resume") as driver:
        wait_for(lambda: driver.poll() is not None or sweep.held)
        [event] = sweep.events("submitted")
        subprocess.run(["scancel", event["job"]], check=True)
        sweep.hold.unlink()
    assert driver.returncode == 0, (sweep.folder / "output.log").read_text()
    [row] = sweep.rows
    assert (row["trial"], row["state"]) == ("0", "failed")
    assert row["reason"] == f"its job {event['job']} was cancelled"
