"""Clients in processes of Ray train as those of this process do, and leave nothing behind."""

import contextlib
import importlib.util
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from experiments_manager import api
from experiments_manager.cli.main import run
from experiments_manager.runs import open_run
from experiments_manager.training.state.checkpoints import read_latest

SETTINGS = """
import keras
import numpy as np

session_name = "federation"
batch_size = 8
early_stopping_patience = None
tensorboard = False
figures = False
export = False
loss = "mean_squared_error"
learning_rate = 0.01
federated = {
    "clients": 2,
    "keep_optimizer": True,
    "differential_privacy": {
        "side": "local", "clipping_norm": 1.0, "sensitivity": 0.001, "epsilon": 1.0, "delta": 1e-5
    },
}


def dataset(split, partition=None, partitions=None):
    x = np.random.default_rng(1).normal(size=(64, 3))
    y = x @ np.array([[1.0], [2.0], [3.0]])
    return (x, y) if partition is None or split != "train" else (x[partition::partitions], y[partition::partitions])


def model():
    hidden = keras.layers.Dense(8, activation="relu"), keras.layers.Dropout(0.2), keras.layers.BatchNormalization()
    return keras.Sequential([keras.layers.Input((3,)), *hidden, keras.layers.Dense(1)])
"""


def checkpointed(run_dir):
    """The global model, and what the clients keep of their optimizers."""
    _, snapshot = read_latest(open_run(run_dir).checkpoints_dir)
    groups = ("epoch_trainer/global/", "epoch_trainer/clients/")
    return {name: np.asarray(value) for name, value in snapshot.tensors.items() if name.startswith(groups)}


def processes_with(text):
    """Command lines of the processes that hold a text."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if text in command:
            found.append(command)
    return found


def folders_of_ray():
    return set(Path(tempfile.gettempdir()).glob("em_ray_*"))


def is_of_ours(folder):
    """Tell the folder of this process' Ray from those of others: the session's name ends with the process' number."""
    return any(session.name.endswith(f"_{os.getpid()}") for session in folder.glob("session_*"))


def descendants():
    """Numbers of this process and of all that it started, itself or by others."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = {os.getpid()}
    while new := {number for number, parent in parents.items() if parent in found} - found:
        found |= new
    return found


def listening_addresses():
    """Addresses at which they listen, as the kernel writes them, with the sockets' numbers."""
    sockets = set()
    for link in (link for number in descendants() for link in Path("/proc", str(number), "fd").glob("*")):
        with contextlib.suppress(OSError):
            sockets.add(str(link.readlink()))
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    return {(fields[1], fields[9]) for fields in lines if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same federation in this process, and by Ray: one round, and another one after a resume."""
    folder = tmp_path_factory.mktemp("runs")
    file = folder / "mysettings_ray.py"
    file.write_text(SETTINGS)
    opened, folders = [], []

    class Listening:
        """Notes the addresses at which somebody listens while Ray runs, and where its files are."""

        def on_epoch(self, report):
            opened.append(listening_addresses() - before)
            folders.extend(folder for folder in folders_of_ray() - folders_before if is_of_ours(folder))

        def __getattr__(self, name):
            return lambda *content: None

    def simulate(engine, rounds, watchers=()):
        settings = api.federation_settings(file, rounds=rounds)
        return api.simulate_federation(
            settings, engine=engine, working_dir=folder, run_name=engine, quiet=True, watchers=watchers
        ).run_dir

    whole = simulate("process", 2)
    before, folders_before = listening_addresses(), folders_of_ray()
    again = simulate("ray", 1, [Listening()])
    api.resume(again, overrides={"epochs": 2}, quiet=True)
    return whole, again, opened, folders


@pytest.mark.slow
def test_weights_and_optimizers_are_those_of_clients_in_one_process(runs):
    pytest.importorskip("ray")
    expected, got = checkpointed(runs[0]), checkpointed(runs[1])
    assert len(expected) > 10
    assert expected.keys() == got.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    assert (runs[0] / "metrics.csv").read_text() == (runs[1] / "metrics.csv").read_text()


@pytest.mark.slow
def test_a_resume_goes_on_with_ray(runs):
    manifest = json.loads((runs[1] / "run.json").read_text())
    assert manifest["federation"] == {"kind": "ray", "clients": 2, "strategy": "FedAvg"}
    assert manifest["epochs"] == 2


@pytest.mark.slow
def test_ray_listens_on_the_loopback_address_alone(runs):
    (opened,) = runs[2]
    addresses = {address.split(":")[0] for address, _ in opened}
    assert addresses
    assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F"}


@pytest.mark.slow
def test_no_process_is_left_and_the_environment_is_as_before(runs):
    (folder,) = runs[3]
    assert processes_with(folder.name) == []
    assert not folder.exists()
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_a_package_that_is_missing_is_named_before_anything_is_made(monkeypatch, tmp_path, capsys):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "ray" else find_spec(name))
    file = tmp_path / "mysettings_ray.py"
    file.write_text(SETTINGS)
    assert run(["federate", "simulate", str(file), "--engine", "ray", "--working-dir", str(tmp_path / "runs")]) != 0
    assert "pip install 'flwr[simulation]" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "runs").exists()
