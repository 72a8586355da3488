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
from tests.helpers.sweep_files import write_sweep_files
from tests.helpers.waiting import wait_until

pytestmark = [pytest.mark.slow]
KILLS = int(os.environ.get("EXPERIMENTS_MANAGER_KILLS", "2"))
TRIALS = 6
SWEEP = f"""
max_trials = {TRIALS}
prune = {{"method": "asha", "min_epochs": 3, "reduction": 2}}
"""


class Sweep:
    """A sweep as a process, which can be killed and started again."""

    def __init__(self, folder):
        folder.mkdir()
        write_sweep_files(folder, SWEEP, "epochs = 12; samples = 256", name="killed")
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


def until_all_kills_have_landed(disturb, expected, folder, record_property):
    """Disturbs one sweep after another, since each may end before the last kill; all must end as `expected`."""
    chance, kills = random.Random(KILLS), []
    while sum(kills) < KILLS:
        sweep = Sweep(folder / f"killed{len(kills)}")
        kills.append(disturb(sweep, chance, KILLS - sum(kills)))
        assert_nothing_is_lost_or_doubled(sweep, expected)
        assert len(kills) < KILLS + 5
        wait_until(lambda sweep=sweep: not sweep.running_trials())
    record_property("kills of each sweep", kills)
    assert sum(kills) == KILLS


def test_a_driver_that_is_killed_again_and_again_loses_and_doubles_nothing(undisturbed, tmp_path, record_property):
    expected, seconds = undisturbed

    def disturb(sweep, chance, most):
        """Kills the driver at any moment, starts it again, and so on; gives how often it was killed at work."""
        sweep.start()
        for kills in range(most):
            until = time.monotonic() + chance.uniform(0.1, 0.8) * seconds
            wait_until(lambda until=until: sweep.has_ended() or time.monotonic() > until, seconds=2 * seconds + 60)
            if sweep.has_ended():
                sweep.end()
                return kills
            sweep.kill()
            sweep.start()
        sweep.end()
        return most

    until_all_kills_have_landed(disturb, expected, tmp_path, record_property)


def test_trials_that_are_killed_go_on_as_runs(undisturbed, tmp_path, record_property):
    expected, seconds = undisturbed

    def disturb(sweep, chance, most):
        """Kills the process of a trial at any moment of its life, the next one too, and so on; gives how many."""
        sweep.start()
        killed = set()

        def alive():
            return [pid for pid in sweep.running_trials() if pid not in killed]

        while len(killed) < most:
            wait_until(lambda: sweep.has_ended() or alive(), 120)
            until = time.monotonic() + chance.uniform(0, seconds / TRIALS)
            wait_until(lambda until=until: time.monotonic() > until, seconds + 60)
            if sweep.has_ended():
                break
            for pid in alive()[:1]:  # its run is locked, so it has not come to its end
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        sweep.end()
        return len(killed)

    until_all_kills_have_landed(disturb, expected, tmp_path, record_property)
