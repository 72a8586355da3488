"""Strategies train a model with batch normalisation, as runs: one of each kind, since the server treats those alike."""

import csv

import numpy as np
import pytest

from experiments_manager import api
from experiments_manager.runs import open_run
from experiments_manager.training.state.checkpoints import read_latest

pytestmark = pytest.mark.slow
SETTINGS = """
import keras
import numpy as np

session_name = "federation"
batch_size = 16
early_stopping_patience = None
ema_momentum = None
tensorboard = False
figures = False
export = False
loss = "mean_squared_error"
learning_rate = 0.01


def dataset(split, partition=None, partitions=None):
    x = np.random.default_rng(1).normal(size=(60, 3)) * 0.01
    y = x @ np.array([[1.0], [2.0], [3.0]])
    return (x, y) if partition is None or split != "train" else (x[partition::partitions], y[partition::partitions])


def model():
    normal = keras.layers.BatchNormalization(momentum=0.1)
    return keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4), normal, keras.layers.Dense(1)])
"""
OF_EACH_KIND = {
    "FedMedian": {},
    "FedAdam": {"eta": 1.0},
    "QFedAvg": {"client_learning_rate": 0.1},
    "ClusteredSpectral": {},
}
"""Without a state, with the moments of an optimizer, by the losses of clients, and with several models."""


@pytest.fixture(scope="module")
def settings_file(tmp_path_factory):
    """The settings of all of these federations, whose inputs vary so little that variances soon do not, either."""
    file = tmp_path_factory.mktemp("settings") / "mysettings_strategies.py"
    file.write_text(SETTINGS)
    return file


def last_weights(run_dir):
    _, snapshot = read_latest(open_run(run_dir).checkpoints_dir)
    prefix = "epoch_trainer/global/"
    return {name: np.asarray(value) for name, value in snapshot.tensors.items() if name.startswith(prefix)}


@pytest.mark.parametrize(("name", "options"), OF_EACH_KIND.items(), ids=OF_EACH_KIND)
def test_a_strategy_trains_for_two_rounds(name, options, settings_file, tmp_path):
    federated = {"strategy": name, "options": options, "min_clients": 3}
    settings = api.federation_settings(settings_file, clients=3, rounds=2, overrides={"federated": federated})
    result = api.simulate_federation(settings, workers=1, working_dir=tmp_path, quiet=True)
    assert (result.state, result.epochs) == ("finished", 2)
    variances = [value for key, value in last_weights(result.run_dir).items() if key.endswith("moving_variance")]
    assert len(variances) == 1
    assert (variances[0] >= 0).all()
    with (result.run_dir / "metrics.csv").open() as file:
        losses = [float(row["val_loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 2
    assert np.isfinite(losses).all()


NOISY = {
    "server": {"side": "server", "noise_multiplier": 0.1, "clipping_norm": 1.0},
    "adaptive": {"side": "client", "clipping": "adaptive", "noise_multiplier": 0.1, "initial_clipping_norm": 1.0},
    "local": {"side": "local", "clipping_norm": 1.0, "sensitivity": 0.01, "epsilon": 1.0, "delta": 1e-5},
}


@pytest.mark.parametrize("privacy", NOISY)
def test_noise_is_the_same_after_a_resume_and_with_other_workers(privacy, settings_file, tmp_path):
    setting = {"federated": {"differential_privacy": {**NOISY[privacy], "num_sampled_clients": 3}, "min_clients": 3}}
    if privacy == "local":
        del setting["federated"]["differential_privacy"]["num_sampled_clients"]

    def simulate(rounds, workers):
        settings = api.federation_settings(settings_file, clients=3, rounds=rounds, overrides=setting)
        return api.simulate_federation(
            settings, workers=workers, working_dir=tmp_path, run_name=f"{rounds}", quiet=True
        ).run_dir

    whole, first = simulate(2, 1), simulate(1, 3)
    before = last_weights(first)
    assert api.resume(first, overrides={"epochs": 2}, quiet=True).epochs == 2
    expected, got = last_weights(whole), last_weights(first)
    assert all(np.array_equal(got[name], expected[name]) for name in expected)
    assert not all(np.array_equal(got[name], before[name]) for name in expected)
