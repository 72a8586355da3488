"""Real command lines in real processes, and experiments that are small enough for them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.warm_processes import WarmPopen, warm_run

PROGRAM = [sys.executable, "-m", "experiments_manager"]

LINE = """
import numpy as np

session_name = "line"
hparams = {"slope": 3.0}
epochs = 2
batch_size = 16
loss = "mean_squared_error"
learning_rate = 0.1
figures = False


def dataset(split):
    x = np.linspace(-1, 1, 64, dtype="float32")[:, None]
    return x, hparams["slope"] * x


def model():
    import keras

    x = keras.Input((1,), name="x")
    return keras.Model(x, keras.layers.Dense(1, name="y")(x))
"""
"""An experiment of a blink; the file imports no TensorFlow before its model is built."""


def environment():
    """The environment, without what would make Python compile TensorFlow anew each time."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


@pytest.fixture
def run_command(tmp_path):
    """Runs one command line in a process of its own, in the test's folder; `cold` where its imports matter."""

    def run(*arguments, cwd=tmp_path, cold=False):
        command = [*PROGRAM, *map(str, arguments)]
        if cold:
            return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=600)
        return warm_run(command, cwd=cwd, env=environment(), timeout=600)

    return run


@pytest.fixture
def line_experiment(tmp_path):
    """The settings file of a small experiment."""
    file = tmp_path / "mysettings_line.py"
    file.write_text(LINE)
    return file


class Running(WarmPopen):
    """A command that is running."""

    def wait_for_first_row(self, runs_dir: Path, seconds: float = 300.0) -> Path:
        """Waits until the one run in a folder of runs has finished an epoch; returns the run's folder."""
        deadline = time.monotonic() + seconds
        while not (tables := list(runs_dir.glob("*/metrics.csv"))) or len(tables[0].read_text().splitlines()) < 2:
            if self.poll() is not None or time.monotonic() > deadline:
                self.kill()
                pytest.fail(f"no epoch finished: {self.communicate()[1]}")
            time.sleep(0.02)
        return tables[0].parent


@pytest.fixture
def start_command(tmp_path):
    """Starts command lines in processes of their own, in the test's folder, and lets them run until the test's end."""
    started = []

    def start(*arguments):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = Running([*PROGRAM, *map(str, arguments)], cwd=tmp_path, env=environment(), text=True, **pipes)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
