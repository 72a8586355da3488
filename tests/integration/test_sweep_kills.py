"""A sweep that is killed anywhere, or whose trials are, ends as one that nobody disturbed.

`EXPERIMENTS_MANAGER_KILLS` says how often each of the two is killed.
"""

import csv
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from experiments_manager.sweeps.state.journal import read_journal
from tests.helpers.waiting import wait_until

pytestmark = [pytest.mark.slow]
KILLS = int(os.environ.get("EXPERIMENTS_MANAGER_KILLS", "3"))
TRIALS = 6
SETTINGS = """
import keras
import numpy as np

hparams = {"learning_rate": 0.05, "units": 4}
epochs = 12
batch_size = 16
loss = "mse"
learning_rate = hparams["learning_rate"]
tensorboard = export = figures = False
early_stopping_patience = None


def dataset(split):
    x = np.random.default_rng(len(split)).normal(size=(256, 3)).astype("float32")
    return x, np.tanh(x.sum(axis=1, keepdims=True))


def model(hparams):
    inputs = keras.Input([3], name="x")
    hidden = keras.layers.Dense(hparams["units"], activation="tanh")(inputs)
    return keras.Model(inputs, keras.layers.Dense(1, name="y")(hidden))
"""
SWEEP = f"""
from math import log
from hyperopt import hp

settings_file = "mysettings_killed.py"
space = {{
    "learning_rate": hp.loguniform("learning_rate", log(1e-3), log(0.3)),
    "units": hp.quniform("units", 2, 8, 1),
}}
max_trials = {TRIALS}
prune = {{"method": "asha", "min_epochs": 3, "reduction": 2}}
"""


class Sweep:
    """A sweep as a process, which can be killed and started again."""

    def __init__(self, folder):
        folder.mkdir()
        (folder / "mysettings_killed.py").write_text(SETTINGS)
        (folder / "mysweep_killed.py").write_text(SWEEP)
        self.folder, self.sweep_dir = folder, folder / "killed"
        self.process = None

    def start(self):
        file = str(self.folder / "mysweep_killed.py")
        command = [sys.executable, "-m", "experiments_manager", "sweep", file, "--resume"]
        self.log = (self.folder / "output.log").open("ab")
        self.process = subprocess.Popen(
            [*command, "--working-dir", str(self.folder)], stdout=self.log, stderr=subprocess.STDOUT
        )

    def has_ended(self):
        return self.process.poll() is not None

    def running_trials(self):
        """Gives the processes that hold the lock of a trial's run."""
        found = []
        for lock in self.sweep_dir.glob("trials/*/run.lock"):
            try:
                pid = int(lock.read_text().split('"pid": ')[1].split(",")[0])
                os.kill(pid, 0)
            except (OSError, IndexError, ValueError):
                continue
            found.append(pid)
        return found

    def events(self):
        return read_journal(self.sweep_dir / "journal.jsonl")

    def end(self):
        """Waits for the end, and says what the process said if it was not a good one."""
        code = self.process.wait(300)
        self.log.close()
        assert code == 0, (self.folder / "output.log").read_text()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def outcome(self):
        """Gives what must not depend on kills: each trial's point, state, epochs and value, and its curve."""
        with (self.sweep_dir / "trials.csv").open() as stream:
            rows = [{name: cell for name, cell in row.items() if name != "seconds"} for row in csv.DictReader(stream)]
        curves = {row["run"]: (self.sweep_dir / "trials" / row["run"] / "metrics.csv").read_bytes() for row in rows}
        return rows, curves


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A sweep that nobody disturbed, and how long it took."""
    sweep = Sweep(tmp_path_factory.mktemp("sweeps") / "undisturbed")
    began = time.monotonic()
    sweep.start()
    sweep.end()
    return sweep, time.monotonic() - began


def assert_nothing_is_lost_or_doubled(sweep, expected):
    rows, curves = sweep.outcome()
    assert rows == expected.outcome()[0]
    assert curves == expected.outcome()[1]
    assert len(rows) == len({row["trial"] for row in rows}) == TRIALS
    assert len(list((sweep.sweep_dir / "trials").iterdir())) == TRIALS
    proposed = [event["trial"] for event in sweep.events() if event["event"] == "proposed"]
    assert proposed == list(range(TRIALS))


def test_a_driver_that_is_killed_again_and_again_loses_and_doubles_nothing(undisturbed, tmp_path):
    expected, seconds = undisturbed
    sweep, chance, kills = Sweep(tmp_path / "killed"), random.Random(KILLS), 0
    while kills < KILLS:
        sweep.start()
        until = time.monotonic() + chance.uniform(0.1, 0.8) * seconds
        wait_until(lambda until=until: sweep.has_ended() or time.monotonic() > until, seconds=2 * seconds + 60)
        if sweep.has_ended():
            break
        sweep.kill()
        kills += 1
    if kills == KILLS:
        sweep.start()
    sweep.end()
    assert kills > 0
    assert_nothing_is_lost_or_doubled(sweep, expected)
    wait_until(lambda: not sweep.running_trials())


def test_trials_that_are_killed_go_on_as_runs(undisturbed, tmp_path):
    expected, seconds = undisturbed
    sweep, chance, kills = Sweep(tmp_path / "killed"), random.Random(KILLS), 0
    sweep.start()
    killed = set()
    while kills < KILLS and not sweep.has_ended():
        wait_until(lambda: sweep.has_ended() or [pid for pid in sweep.running_trials() if pid not in killed], 120)
        found = [pid for pid in sweep.running_trials() if pid not in killed]
        until = time.monotonic() + chance.uniform(0, seconds / TRIALS)
        wait_until(lambda until=until: time.monotonic() > until, seconds + 60)
        for pid in found:
            killed.add(pid)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            kills += 1
    sweep.end()
    assert kills > 0
    assert_nothing_is_lost_or_doubled(sweep, expected)
