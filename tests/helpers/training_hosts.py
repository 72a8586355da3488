"""Processes on the loopback address that train together, as on several hosts, and what they leave behind."""

import contextlib
import csv
import json
import os
import secrets
import socket
import sys
import time
from pathlib import Path

import numpy as np

from tests.helpers.warm_processes import WarmPopen

SETTINGS = Path(__file__).resolve().parents[1] / "integration/hosts/mysettings_hosts.py"
LONGEST = 600.0
PORTS = range(20000, 32000)
"""None of these is given to a connection, to a server that asks for any port, or to Ray's workers (up to 19999)."""


def free_addresses(number):
    """Gives addresses on which nothing listens, and on which nothing else will while the test runs."""
    found = []
    while len(found) < number:
        port = secrets.choice(PORTS)  # trainings in this process seed `random` alike in all processes of the tests
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(f"127.0.0.1:{port}")
    return found if len(set(found)) == number else free_addresses(number)


class Training:
    """Processes that run the same command line; `output` has what each said."""

    def __init__(self, folder, workers, *words):
        folder.mkdir(parents=True, exist_ok=True)
        self.addresses, self.processes, self.files = free_addresses(workers), [], []
        for index in range(workers):
            environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TMPDIR": str(folder)}
            environment.pop("TF_CONFIG", None)
            if workers > 1:
                task = {"cluster": {"worker": self.addresses}, "task": {"type": "worker", "index": index}}
                environment["TF_CONFIG"] = json.dumps(task)
            self.files.append(folder / f"output-{time.monotonic_ns()}-{index}")
            with self.files[-1].open("w") as output:
                command = [sys.executable, "-m", "experiments_manager", *map(str, words)]
                self.processes.append(WarmPopen(command, env=environment, stdout=output, stderr=output))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    @property
    def output(self):
        return [file.read_text() for file in self.files]

    def end(self, seconds=LONGEST):
        """Wait for all; return their exit codes."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.wait(max(0.1, deadline - time.monotonic()))
        return [process.returncode for process in self.processes]

    def wait_for(self, there):
        """Wait until something is there, while all processes run."""
        deadline = time.monotonic() + LONGEST
        while not there():
            assert time.monotonic() < deadline, self.output
            assert [process.poll() for process in self.processes] == [None] * len(self.processes), self.output
            time.sleep(0.1)


def trained(folder, name, workers, *words, settings=SETTINGS):
    """Train to the end, and return the run folder."""
    command = ("train", settings, "--working-dir", folder / "runs", "--run-name", name, *words)
    with Training(folder / name, workers, *command) as training:
        assert training.end() == [0] * workers, training.output
    return folder / "runs" / name


def tensors_of(run):
    """Return the tensors of the newest checkpoint by name."""
    import tensorflow as tf

    newest = (run / "checkpoints" / "latest").read_text().strip()
    reader = tf.train.load_checkpoint(str(run / "checkpoints" / newest / "variables"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def weights_of(run):
    return {name: value for name, value in tensors_of(run).items() if name.startswith(("model", "averages", "best"))}


def assert_near(tensors, others):
    assert tensors.keys() == others.keys()
    for name, value in tensors.items():
        np.testing.assert_allclose(others[name], value, rtol=0, atol=1e-5, err_msg=name)


def assert_same_bits(tensors, others):
    assert tensors.keys() == others.keys()
    assert [name for name, value in tensors.items() if value.tobytes() != others[name].tobytes()] == []


def rows_of(run):
    """Return the numbers of each epoch, but for the time."""
    with (run / "metrics.csv").open() as file:
        return [{name: value for name, value in row.items() if "second" not in name} for row in csv.DictReader(file)]
