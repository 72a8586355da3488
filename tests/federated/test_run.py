"""A federation in one process, as an ordinary run."""

import csv
import json

import numpy as np
import pytest

from experiments_manager import api
from experiments_manager.federated.errors import FederationError
from experiments_manager.runs import open_run
from experiments_manager.settings import SettingsError
from experiments_manager.training.state.checkpoints import read_latest

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
federated = {"rounds": 3}


def dataset(split, partition=None, partitions=None):
    x = np.random.default_rng(1).normal(size=(90, 3))
    y = x @ np.array([[1.0], [2.0], [3.0]])
    if split != "train":
        return x[60:], y[60:]
    if partition is not None:
        x, y = x[partition:60:partitions], y[partition:60:partitions]
    return x[:60], y[:60]


def hidden():
    return keras.layers.Dense(8, activation="relu"), keras.layers.Dropout(0.2), keras.layers.BatchNormalization()


def model():
    return keras.Sequential([keras.layers.Input((3,)), *hidden(), keras.layers.Dense(1)])
"""


@pytest.fixture
def settings_file(tmp_path):
    """Gives a settings module, some of whose text is replaced."""

    def write(*replaced):
        text = SETTINGS
        for old, new in replaced:
            assert old in text
            text = text.replace(old, new)
        file = tmp_path / "mysettings_federation.py"
        file.write_text(text)
        return file

    return write


class Stopping:
    """Stops a federation as Ctrl-C does, once a round is over."""

    def __init__(self, after):
        self.after = after

    def on_epoch(self, report):
        import os
        import signal

        if report.epoch == self.after:
            os.kill(os.getpid(), signal.SIGTERM)

    def __getattr__(self, name):
        return lambda *content: None


def simulate(file, tmp_path, name, *, clients=3, workers=1, watchers=(), rounds=None):
    settings = api.federation_settings(file, clients=clients, rounds=rounds)
    return api.simulate_federation(
        settings, workers=workers, working_dir=tmp_path / "runs", run_name=name, quiet=True, watchers=watchers
    )


def rows(result):
    with (result.run_dir / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def weights(result):
    """The global model's variables after the last round."""
    _, snapshot = read_latest(open_run(result.run_dir).checkpoints_dir)
    names = sorted(name for name in snapshot.tensors if name.startswith("epoch_trainer/global/"))
    return {name: np.asarray(snapshot.tensors[name]) for name in names}


def same(first, second):
    first, second = weights(first), weights(second)
    assert first
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def test_a_federation_is_a_run_with_a_row_a_round(settings_file, tmp_path):
    result = simulate(settings_file(("export = False", "export = True")), tmp_path, "one", rounds=4)
    assert (result.state, result.epochs) == ("finished", 4)
    losses = [float(row["val_loss"]) for row in rows(result)]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    manifest = json.loads((result.run_dir / "run.json").read_text())
    assert manifest["federation"] == {"kind": "simulation", "clients": 3, "strategy": "FedAvg"}
    assert {path.name for path in (result.run_dir / "exported_models").iterdir()} <= {"1", "2", "3", "4"}


def test_results_do_not_depend_on_how_many_clients_train_at_a_time(settings_file, tmp_path, monkeypatch):
    monkeypatch.setattr("experiments_manager.federated.simulation.simulated_fleet._SECONDS_OF_A_SHORT_ROUND", 0.0)
    results = [simulate(settings_file(), tmp_path, f"w{workers}", workers=workers) for workers in (1, 3)]
    assert same(*results)


@pytest.mark.parametrize(
    "federated",
    [
        '{"rounds": 3}',
        '{"rounds": 3, "strategy": "FedAdam", "options": {"eta": 0.1}}',
        '{"rounds": 3, "strategy": "FedAvgM", "options": {"server_momentum": 0.9}, "keep_optimizer": True}',
        '{"rounds": 3, "strategy": "FedProx", "options": {"proximal_mu": 0.5}}',
        '{"rounds": 3, "fraction_train": 0.67, "local_epochs": 2}',
    ],
)
def test_an_interrupted_federation_ends_with_the_same_bits(settings_file, tmp_path, federated):
    file = settings_file(('{"rounds": 3}', federated), ('optimizer = "sgd"', 'optimizer = "adam"'))
    whole = simulate(file, tmp_path, "whole")
    stopped = simulate(file, tmp_path, "stopped", watchers=[Stopping(after=1)])
    assert stopped.state == "interrupted"
    resumed = api.resume(stopped.run_dir, quiet=True)
    assert (resumed.state, resumed.epochs) == ("finished", 3)
    assert same(whole, resumed)
    assert [row["val_loss"] for row in rows(whole)] == [row["val_loss"] for row in rows(resumed)]


def test_one_round_is_federated_averaging_as_numpy_computes_it(settings_file, tmp_path):
    file = settings_file(
        ("*hidden(), ", ""), ("batch_size = 8", "batch_size = 100"), ("60:partitions", "50:partitions")
    )
    first = simulate(file, tmp_path, "zero", rounds=1)
    after = list(weights(first).values())
    x = np.random.default_rng(1).normal(size=(90, 3)).astype("float32")
    y = (x.astype(np.float64) @ np.array([[1.0], [2.0], [3.0]])).astype("float32")
    kernel, bias = initial_weights(file)
    sums, total = [0.0, 0.0], 0
    for client in range(3):
        part, goal = x[client:50:3], y[client:50:3]
        error = part @ kernel + bias - goal
        local = kernel - 0.05 * 2 * part.T @ error / len(part), bias - 0.05 * 2 * error.mean(axis=0)
        sums = [left + len(part) * right for left, right in zip(sums, local, strict=True)]
        total += len(part)
    for found, expected in zip(after, sums, strict=True):
        np.testing.assert_allclose(found, expected / total, rtol=1e-5)


def initial_weights(file):
    from experiments_manager.training.devices.devices import prepared_devices
    from experiments_manager.training.setup.experiment import build_experiment

    settings = api.load_settings(file)
    with prepared_devices(settings) as devices:
        return [w.numpy() for w in build_experiment(settings, devices, with_export=False).model.weights]


def test_everything_wrong_with_the_setting_is_told_at_once(settings_file, tmp_path):
    file = settings_file(('{"rounds": 3}', '{"rounds": 0, "local_epoch": 2, "keep_optimizer": 1}'))
    with pytest.raises(SettingsError) as caught:
        simulate(file, tmp_path, "bad")
    text = str(caught.value)
    assert "mysettings_federation.py" in text
    assert "Expected an integer of at least 1, got 0" in text
    assert "local_epochs" in text
    assert "Expected True or False, got 1" in text
    assert not (tmp_path / "runs" / "bad").exists()


def test_the_number_of_clients_is_asked_for(settings_file, tmp_path):
    with pytest.raises(FederationError, match="Add --clients N"):
        simulate(settings_file(), tmp_path, "none", clients=None)


def test_a_client_whose_loss_is_not_finite_is_left_out_and_named(settings_file, tmp_path, capsys):
    file = settings_file(("    return x[:60], y[:60]", "    return x[:60], y[:60] * (1e38 if partition == 1 else 1)"))
    said = []

    class Listening(Stopping):
        def on_message(self, text):
            said.append(text)

    result = simulate(file, tmp_path, "nan", watchers=[Listening(after=None)])
    assert result.state == "finished"
    assert [text for text in said if "client 1 was left out" in text and "NaN" in text]
    assert not [text for text in said if "client 0 was left out" in text]


def test_the_row_of_a_round_counts_clients_and_bytes_and_clients_csv_names_them(settings_file, tmp_path):
    file = settings_file(("    return x[:60], y[:60]", "    return x[:60], y[:60] * (1e38 if partition == 1 else 1)"))
    result = simulate(file, tmp_path, "counted", rounds=2)
    for row in rows(result):
        assert (row["participants"], row["left_out"]) == ("2.0", "1.0")
        assert float(row["bytes_sent"]) > float(row["bytes_received"]) > 0
    with (result.run_dir / "clients.csv").open() as table:
        told = list(csv.DictReader(table))
    assert [(row["round"], row["client"], row["took_part"]) for row in told] == [
        ("1", "0", "1"), ("1", "1", "0"), ("1", "2", "1"), ("2", "0", "1"), ("2", "1", "0"), ("2", "2", "1"),
    ]  # fmt: skip
    assert "NaN" in told[1]["left_out"]


class StoppingInValidation(Stopping):
    """Stops a federation as Ctrl-C does, just before a round is validated."""

    def on_round(self, report, strategy):
        import os
        import signal

        if report.round == self.after:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.parametrize("stopping", [Stopping, StoppingInValidation])
def test_tables_of_an_interrupted_federation_have_the_same_bytes(settings_file, tmp_path, monkeypatch, stopping):
    from experiments_manager.federated import run as federated_run

    made = federated_run.round_watchers
    file, stop = settings_file(), stopping(after=2)
    whole = simulate(file, tmp_path, "whole")
    with monkeypatch.context() as patch:
        patch.setattr(
            federated_run, "round_watchers", lambda *given: [*made(*given), *[stop][: stopping is not Stopping]]
        )
        stopped = simulate(file, tmp_path, "stopped", watchers=[stop] if stopping is Stopping else [])
    assert stopped.state == "interrupted"
    assert api.resume(stopped.run_dir, quiet=True).epochs == 3
    assert same(whole, stopped)
    names = ["metrics.csv", "clients.csv"]
    for name in names:
        assert (whole.run_dir / name).read_bytes() == (stopped.run_dir / name).read_bytes(), name
