"""The examples of federations train centrally and as federations, and split their data among the clients."""

import csv
from pathlib import Path

import numpy as np
import pytest

from experiments_manager import api
from experiments_manager.federated import round_trainer
from experiments_manager.settings import load_settings

pytest.importorskip("sklearn")
FOLDER = Path(__file__).parents[2] / "examples" / "federated"
FILES = ["mysettings_curve_fitting.py", "mysettings_digits.py"]
CLIENTS = 10


QUIET = {"export": False, "figures": False, "tensorboard": False, "early_stopping_patience": None}


def last(result, name):
    with (result.run_dir / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file)][-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "clients", "name", "apart"),
    [(FILES[0], 5, "val_loss", 0.004), (FILES[1], CLIENTS, "val_accuracy", 0.02)],
)
def test_an_example_is_nearly_as_good_as_a_federation(file, clients, name, apart, tmp_path):
    central = api.train(FOLDER / file, overrides=QUIET, working_dir=tmp_path, quiet=True)
    settings = api.federation_settings(FOLDER / file, clients=clients, overrides=QUIET)
    federated = api.simulate_federation(settings, working_dir=tmp_path, quiet=True)
    assert (central.epochs, federated.epochs) == (20, 20)
    assert abs(last(central, name) - last(federated, name)) <= apart


def share_of(settings, client, split="train"):
    return settings.call("dataset", split=split, partition=client, partitions=CLIENTS)


@pytest.mark.parametrize("file", FILES)
def test_the_shares_of_an_example_are_its_training_data_and_validation_stays_whole(file):
    settings = load_settings(FOLDER / file)
    shares = [share_of(settings, client)[1] for client in range(CLIENTS)]
    expected = settings.call("dataset", split="train")[1]
    assert np.array_equal(np.sort(np.concatenate(shares), axis=0), np.sort(expected, axis=0))
    for client in (0, CLIENTS - 1):
        validation = settings.call("dataset", split="validation")[1]
        assert np.array_equal(share_of(settings, client, "validation")[1], validation)


def test_the_second_half_of_the_clients_sees_digits_turned():
    upright, turned = (load_settings(FOLDER / FILES[1], [f"hparams.rotations={rotations}"]) for rotations in (1, 2))
    for client, turns in ((4, 0), (5, 1)):
        expected = np.rot90(share_of(upright, client)[0], turns, axes=(1, 2))
        assert np.array_equal(share_of(turned, client)[0], expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "options"), [("ClusteredCosine", {"split_rounds": [3]}), ("ClusteredSpectral", {"split_rounds": [3]})]
)
def test_clients_whose_digits_are_turned_are_a_cluster_of_their_own(strategy, options, tmp_path, monkeypatch):
    made = []
    make_strategy = round_trainer.make_strategy
    monkeypatch.setattr(round_trainer, "make_strategy", lambda *given: made.append(make_strategy(*given)) or made[-1])
    federated = {"strategy": strategy, "options": options, "local_epochs": 5}
    changes = {**QUIET, "hparams.rotations": 2, "federated": federated}
    settings = api.federation_settings(FOLDER / FILES[1], clients=CLIENTS, rounds=4, overrides=changes)
    api.simulate_federation(settings, working_dir=tmp_path, quiet=True)
    rotation = settings.experiment_settings.rotation
    truth = {client: rotation(client, CLIENTS, settings.hparams) for client in range(CLIENTS)}
    assert set(truth.values()) == {0, 1}
    assert made[-1].clustered.score(truth) == 1.0
    assert [cluster.proc_ids for cluster in made[-1].clusters] == [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9)]
