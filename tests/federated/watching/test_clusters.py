"""Clusters of clients are written, drawn, scored and exported, and know the true groups."""

import csv
import json
import os
import signal

import numpy as np
import pytest

pytest.importorskip("flwr")

from experiments_manager import api
from experiments_manager.federated import run as federated_run
from experiments_manager.settings import SettingsError

pytestmark = pytest.mark.slow

SETTINGS = """
import keras
import numpy as np

session_name = "federation"
hparams = {"learning_rate": 0.1}
batch_size = 2
early_stopping_patience = None
tensorboard = False
loss = "mean_squared_error"
learning_rate = hparams["learning_rate"]
optimizer = "sgd"
federated = {
    "clients": 6,
    "rounds": 4,
    "strategy": "ClusteredCosine",
    "options": {"split_rounds": [2]},
    "true_groups": ["up", "down"] * 3,
}


def dataset(split, partition=None, partitions=None):
    x = np.random.default_rng(1).normal(size=(150, 3))
    y = x @ np.array([[1.0], [2.0], [3.0]])
    if split != "train":
        return x[120:], y[120:]
    if partition is not None:
        x, y = x[partition:120:partitions], y[partition:120:partitions]
        y = -y if partition % 2 else y
    return x[:120], y[:120]


def model():
    return keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
"""


class Stop:
    """Stops a federation as Ctrl-C does, while it tells of a round."""

    def __init__(self, number):
        self.number = number

    def on_round(self, report, strategy):
        if report.round == self.number:
            os.kill(os.getpid(), signal.SIGTERM)

    def __getattr__(self, name):
        return lambda *content: None


def simulate(folder, name):
    file = folder / "mysettings.py"
    file.write_text(SETTINGS)
    return api.simulate_federation(
        api.federation_settings(file), working_dir=folder / "runs", run_name=name, quiet=True
    ).run_dir


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """The folder of a federation of six clients, every other of whom learns the contrary."""
    return simulate(tmp_path_factory.mktemp("clusters"), "whole")


@pytest.fixture(scope="module")
def told(federation):
    return json.loads((federation / "clusters.json").read_text())


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_members_splits_and_samples_are_written(told):
    assert (told["round"], told["ari"]) == (4, 1.0)
    assert [cluster["members"] for cluster in told["clusters"]] == [[0, 2, 4], [1, 3, 5]]
    assert [cluster["samples"] for cluster in told["clusters"]] == [60.0, 60.0]
    (split,) = told["splits"]
    assert (split["round"], split["groups"]) == (2, [[0, 2, 4], [1, 3, 5]])


def test_rounds_tell_how_many_clusters_there_are_and_how_true(federation):
    assert [row["clusters/count"] for row in rows(federation)] == ["1.0", "2.0", "2.0", "2.0"]
    assert [row["clusters/ari"] for row in rows(federation)] == ["0.0", "1.0", "1.0", "1.0"]


def test_each_cluster_is_scored_and_exported_when_it_came_up_and_at_the_end(federation, told):
    right, contrary = (cluster["metrics"]["val_loss"] for cluster in told["clusters"])
    assert right < contrary / 4  # the validation split is what the first cluster learns
    for cluster in told["clusters"]:
        versions = federation / "clusters" / cluster["name"] / "exported_models"
        assert {path.name for path in versions.iterdir()} == {"2", "4"}
        assert cluster["version"] == 4


def test_the_versions_of_two_clusters_predict_the_contrary(federation):
    import tensorflow as tf

    x = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], "float32")
    answers = []
    for name in ("0", "1"):
        loaded = tf.saved_model.load(str(federation / "clusters" / name / "exported_models" / "4"))
        signature = loaded.signatures["serving_default"]
        (key,) = signature.structured_input_signature[1]
        answers.append(next(iter(signature(**{key: x}).values())).numpy())
    assert (answers[0] > 0.2).all()
    assert (answers[1] < -0.2).all()


def test_the_clusters_are_drawn(federation):
    assert (federation / "figures" / "clusters.png").read_bytes().startswith(b"\x89PNG")
    assert "cluster in each round" in (federation / "figures" / "clusters.svg").read_text()


@pytest.mark.parametrize("number", [3, 4], ids=["in a round", "in the last one"])
def test_clusters_survive_an_interruption(federation, tmp_path, monkeypatch, number):
    made = federated_run.round_watchers
    with monkeypatch.context() as patch:
        patch.setattr(federated_run, "round_watchers", lambda *given: [*made(*given), Stop(number)])
        stopped = simulate(tmp_path, "whole")
    assert len(rows(stopped)) == number - 1
    assert json.loads((stopped / "clusters.json").read_text())["round"] == 2
    api.resume(stopped, quiet=True)
    for name in ("metrics.csv", "clients.csv", "clusters.json", "clients/5/metrics.csv", "figures/clusters.svg"):
        assert (stopped / name).read_bytes() == (federation / name).read_bytes(), name
    assert json.loads((stopped / "clients" / "5" / "run.json").read_text())["state"] == "finished"


@pytest.mark.parametrize(
    ("groups", "problem"),
    [("7", "got 7"), ("[0, 1]", "a group for each of 6 clients, got 2")],
    ids=["no list", "short"],
)
def test_true_groups_that_are_wrong_are_refused(tmp_path, groups, problem):
    file = tmp_path / "mysettings.py"
    file.write_text(SETTINGS.replace('["up", "down"] * 3', groups))
    with pytest.raises(SettingsError, match=problem):
        api.simulate_federation(api.federation_settings(file), working_dir=tmp_path)
