"""The commands of a federation of several machines, each in a process of its own, all on this one."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import psutil

from tests.helpers.waiting import wait_until
from tests.helpers.warm_processes import WarmPopen

ROOT = Path(__file__).parents[2]
PATIENCE = 480
"""Seconds; much more than anything takes where nothing else runs."""

SETTINGS = """
import os
import time
from pathlib import Path

import keras
import numpy as np

session_name = "federation"
hparams = {"learning_rate": 0.05, "hidden": 8}
batch_size = 8
early_stopping_patience = None
tensorboard = False
figures = False
export = False
loss = "mean_squared_error"
learning_rate = hparams["learning_rate"]
optimizer = "adam"
federated = {
    "clients": 2,
    "rounds": 3,
    "strategy": "FedAvgM",
    "options": {"server_momentum": 0.9},
    "keep_optimizer": True,
}


def dataset(split, partition=None, partitions=None):
    x = np.random.default_rng(1).normal(size=(90, 3))
    y = x @ np.array([[1.0], [2.0], [3.0]])
    if split != "train":
        return x[60:], y[60:]
    if partition is None:
        if "NO_DATA" in os.environ:
            raise FileNotFoundError("the data are at the clients")
        return x[:60], y[:60]
    if "BEGUN" in os.environ:
        Path(os.environ["BEGUN"]).touch()
        time.sleep(600)
    return x[partition:60:partitions], y[partition:60:partitions]


def model(hparams):
    hidden = keras.layers.Dense(hparams["hidden"], activation="relu"), keras.layers.Dropout(0.2)
    return keras.Sequential([keras.layers.Input((3,)), *hidden, keras.layers.Dense(1)])
"""


class Command:
    """A command that runs; `log` is what it says."""

    def __init__(self, folder, name, *arguments, **environment):
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            self.process = WarmPopen(
                [sys.executable, "-m", "experiments_manager", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": str(ROOT), "NO_DATA": "1", **environment},
                cwd=folder,
            )

    def wait(self):
        """Gives its exit code."""
        return self.process.wait(PATIENCE)

    def kill(self):
        """Ends it by SIGKILL."""
        self.process.kill()
        self.process.wait()

    def terminate(self):
        """Ends it by SIGTERM, and gives its exit code."""
        self.process.terminate()
        return self.wait()

    def end(self):
        """Ends it, if it has not."""
        if self.process.poll() is None:
            self.kill()

    def said(self):
        """Gives what it said."""
        return self.log.read_text(errors="replace")

    def wait_for(self, condition):
        """Waits until something is so, while it runs."""

        def is_so():
            found = condition()
            assert found or self.process.poll() is None, self.said()
            return found

        return wait_until(is_so, PATIENCE)


def rows(run_dir):
    """Gives the rows of a `metrics.csv` as lists of cells, without the header."""
    file = run_dir / "metrics.csv"
    return [line.split(",") for line in file.read_text().splitlines()[1:]] if file.exists() else []


def processes_below(folder):
    """Gives the numbers of the processes that Flower started for runs below a folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("FLWR_HOME", "").startswith(str(folder)):
                found.append(process.pid)
    return found
