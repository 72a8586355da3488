"""Each client of a federation has a run folder of its own, below that of the global model."""

import csv
import json
import shutil

import pytest

pytest.importorskip("flwr")

from experiments_manager import api
from experiments_manager.cli.main import run as command_line
from experiments_manager.runs import RunError, list_runs, open_run

SETTINGS = """
import keras
import numpy as np

session_name = "federation"
hparams = {"learning_rate": 0.05}
batch_size = 8
early_stopping_patience = None
tensorboard = False
figures = False
export = False
loss = "mean_squared_error"
learning_rate = hparams["learning_rate"]
optimizer = "sgd"
federated = {"clients": 3, "rounds": 3, "fraction_train": 0.67}


def dataset(split, partition=None, partitions=None):
    x = np.random.default_rng(1).normal(size=(90, 3))
    y = x @ np.array([[1.0], [2.0], [3.0]])
    if split != "train":
        return x[60:], y[60:] + (100 * partition if split == "test" and partition is not None else 0)
    if partition is not None:
        x, y = x[partition:60:partitions], y[partition:60:partitions]
    return x[:60], y[:60]


def model():
    return keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
"""


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """The folder of a federation of three clients, of whom two train in a round."""
    folder = tmp_path_factory.mktemp("federation")
    file = folder / "mysettings.py"
    file.write_text(SETTINGS)
    settings = api.federation_settings(file)
    result = api.simulate_federation(settings, working_dir=folder / "runs", run_name="parent", quiet=True)
    return result.run_dir


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_each_client_has_a_row_for_each_round_it_took_part_in(federation):
    with (federation / "clients.csv").open() as file:
        told = [(int(row["client"]), row["round"], row["loss"]) for row in csv.DictReader(file)]
    assert len(told) == 6
    for number in sorted({number for number, _, _ in told}):
        found = rows(federation / "clients" / str(number))
        assert [(row["epoch"], row["loss"]) for row in found] == [row[1:] for row in told if row[0] == number]
        assert [int(row["step"]) for row in found] == [3 * (n + 1) for n in range(len(found))]  # 20 samples by 8


@pytest.mark.slow
def test_its_manifest_says_whose_it_is_and_how_it_ended(federation):
    manifest = open_run(federation / "clients" / "1").manifest
    assert manifest["federation"] == {"kind": "client", "proc_id": 1, "of": "parent"}
    assert manifest["hparams"] == {"learning_rate": 0.05, "procID": 1}
    assert manifest["state"] == "finished"
    last = rows(federation / "clients" / "1")[-1]
    assert manifest["metrics"]["loss"] == float(last["loss"])
    assert manifest["best"]["name"] == "loss"
    assert manifest["epochs"] == int(last["epoch"])


@pytest.mark.slow
def test_clients_are_listed_when_they_are_asked_for(federation, capsys):
    assert [row.name for row in list_runs(federation.parent)] == ["parent"]
    assert [row.name for row in list_runs(federation.parent, clients=True)] == ["parent", "0", "1", "2"]
    assert [row.name for row in list_runs(federation / "clients")] == ["0", "1", "2"]
    backwards = list_runs(federation.parent, "procID", descending=True, clients=True)
    assert [row.name for row in backwards] == ["parent", "2", "1", "0"]
    assert command_line(["runs", str(federation.parent), "--clients", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)["runs"]] == ["parent", "0", "1", "2"]


@pytest.mark.slow
def test_clients_are_compared_and_reported_as_runs_are(federation, tmp_path):
    clients = [federation / "clients" / name for name in ("0", "1")]
    comparison = api.compare_runs(clients)
    assert comparison.hparams == {"procID": [0, 1]}
    assert comparison.settings == comparison.code == {}
    assert api.plot_runs(clients, tmp_path / "curves.png").is_file()
    page = api.report(federation / "clients", tmp_path / "report.html").read_text()
    assert "procID" in page
    assert api.report(clients[0], tmp_path / "one.html").is_file()


@pytest.mark.slow
def test_a_client_is_evaluated_with_the_global_weights_on_its_own_data(federation):
    whole, first, last = (api.evaluate(federation / place) for place in (".", "clients/0", "clients/2"))
    assert first == whole  # this settings module adds 100 for each number
    assert last["loss"] > 100 * whole["loss"] > 0


@pytest.mark.slow
def test_the_folder_of_a_client_that_was_taken_away_cannot_be_evaluated(federation, tmp_path):
    shutil.copytree(federation / "clients" / "1", tmp_path / "1")
    with pytest.raises(RunError, match="client 1.*Expected it in the folder `clients`"):
        api.evaluate(tmp_path / "1")


@pytest.mark.slow
def test_a_client_is_not_resumed_without_its_federation(federation, capsys):
    with pytest.raises(RunError, match="client 2 of a federation.*experiments_manager resume .*parent"):
        api.resume(federation / "clients" / "2")
    assert command_line(["resume", str(federation / "clients" / "2")]) == 2
    assert "Resume that" in capsys.readouterr().err


@pytest.mark.slow
def test_an_unfinished_federation_and_its_clients_are_killed_alike(federation, tmp_path):
    copy = tmp_path / "parent"
    shutil.copytree(federation, copy)
    for folder in (copy, copy / "clients" / "0"):
        open_run(folder).update(state="running")
    states = {row.name: row.state for row in list_runs(tmp_path, clients=True)}
    assert states == {"parent": "killed", "0": "killed", "1": "finished", "2": "finished"}


class Told:
    """A run, and reports of rounds, without a federation."""

    def __init__(self, folder):
        from experiments_manager.federated.watching.client_runs import ClientRuns
        from experiments_manager.runs import create_run
        from experiments_manager.settings import load_settings
        from experiments_manager.training.state.monitor import Monitor

        settings = folder / "settings.py"
        settings.write_text(SETTINGS)
        self.run = create_run(folder, "x", run_name="told")
        self.make = lambda: ClientRuns(self.run, load_settings(settings), Monitor.make("val_loss", "auto"))

    def write(self, watcher, number, **evaluation):
        from experiments_manager.federated.server.federation_state import RoundReport

        trained = {k: {"num-examples": 5.0, "num-steps": 2.0, "loss": 1 / (number + k)} for k in (3, 11)}
        clients = {3: {"num-examples": 5.0, **evaluation}} if evaluation else {}
        watcher.on_round(RoundReport(number, 1.0, {}, {}, trained, clients, (3, 11), (), 1, 1), None)

    @property
    def tables(self):
        return {path.parent.name: path.read_bytes() for path in self.run.clients_dir.glob("*/metrics.csv")}


@pytest.fixture
def told(tmp_path):
    return Told(tmp_path)


def test_rounds_that_come_again_stand_there_once(told, tmp_path):
    watcher = told.make()
    watcher.on_begin(1)
    for number in (1, 2, 3):
        told.write(watcher, number)
    whole = told.tables
    assert set(whole) == {"3", "11"}
    told.write(watcher, 2)
    told.write(watcher, 3)
    assert told.tables == whole
    again = told.make()
    again.on_begin(3)
    assert told.tables != whole
    told.write(again, 3)
    assert told.tables == whole


def test_the_best_round_is_judged_by_the_evaluation_where_there_is_one(told):
    from experiments_manager.events import RunEnd

    watcher = told.make()
    watcher.on_begin(1)
    for number, loss in ((1, 0.5), (2, 0.25), (3, 0.75)):
        told.write(watcher, number, loss=loss)
    watcher.on_end(RunEnd("interrupted", 3, 1.0, None, {}, None))
    manifests = {name: open_run(told.run.clients_dir / name).manifest for name in ("3", "11")}
    assert manifests["3"]["best"] == {"value": 0.25, "epoch": 2, "step": 4, "name": "val_loss"}
    assert manifests["11"]["best"]["name"] == "loss"
    assert {manifest["state"] for manifest in manifests.values()} == {"interrupted"}


def test_a_disk_that_refuses_is_told_once_and_loses_no_row(told, monkeypatch, caplog):
    from experiments_manager.monitoring import growing_csv

    whole, watcher = told.make(), told.make()
    whole.on_begin(1)
    for number in (1, 2, 3):
        told.write(whole, number)
    expected = told.tables
    watcher.on_begin(1)
    assert told.tables == {}

    def refuse(path, text, **options):
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(growing_csv, "write_text", refuse)
        told.write(watcher, 1)
        told.write(watcher, 2)
    assert len(caplog.records) == 1
    told.write(watcher, 3)
    assert told.tables == expected
