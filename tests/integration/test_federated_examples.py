"""The examples of federations train centrally, and on the data of one client."""

from pathlib import Path

import numpy as np
import pytest

from experiments_manager import api
from experiments_manager.settings import load_settings

pytest.importorskip("sklearn")
FOLDER = Path(__file__).parents[2] / "examples" / "federated"
FILES = ["mysettings_curve_fitting.py", "mysettings_digits.py"]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [{}, {"hparams.procID": 1}], ids=["central", "client"])
@pytest.mark.parametrize("file", FILES)
def test_an_example_trains(file, overrides, tmp_path):
    given = {"epochs": 1, "export": False} | overrides
    result = api.train(FOLDER / file, overrides=given, working_dir=tmp_path, quiet=True)
    assert (result.run_dir / "metrics.csv").is_file()


@pytest.mark.parametrize("file", FILES)
def test_the_shares_of_an_example_are_its_training_data_and_validation_stays_whole(file):
    whole = load_settings(FOLDER / file)
    clients = [load_settings(FOLDER / file, [f"hparams.procID={k}"]) for k in range(whole.hparams["clients"])]
    shares = [client.call("dataset", split="train")[1] for client in clients]
    expected = whole.call("dataset", split="train")[1]
    assert np.array_equal(np.sort(np.concatenate(shares), axis=0), np.sort(expected, axis=0))
    for client in clients:
        assert np.array_equal(
            client.call("dataset", split="validation")[1], whole.call("dataset", split="validation")[1]
        )


def test_the_second_half_of_the_clients_sees_digits_turned():
    for client, turns in ((4, 0), (5, 1)):
        upright, turned = (
            load_settings(FOLDER / FILES[1], [f"hparams.procID={client}", f"hparams.rotations={rotations}"]).call(
                "dataset", split="train"
            )[0]
            for rotations in (1, 2)
        )
        assert np.array_equal(turned, np.rot90(upright, turns, axes=(1, 2)))
