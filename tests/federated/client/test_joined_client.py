"""A client on a machine of its own, asked without any process of Flower."""

import csv
import json

import numpy as np
import pytest

from experiments_manager.federated.flower import flower
from experiments_manager.settings import load_settings
from tests.helpers.federation_commands import SETTINGS

flower()

from flwr.app import ConfigRecord, RecordDict  # noqa: E402

from experiments_manager.federated.client.joined_client import ClientOptions, JoinedClient  # noqa: E402
from experiments_manager.federated.message_records import to_arrays, to_record  # noqa: E402
from experiments_manager.federated.settings_handshake import terms_of  # noqa: E402


@pytest.fixture
def file(tmp_path):
    """A settings module."""
    (tmp_path / "mysettings.py").write_text(SETTINGS)
    return tmp_path / "mysettings.py"


@pytest.fixture
def joined(file, tmp_path):
    """Gives what starts a client, as in a new process; all are let go afterwards."""
    started = []

    def start(number=1, settings=None, **options):
        options = ClientOptions(number, working_dir=tmp_path / "runs", **options)
        started.append(JoinedClient(settings or load_settings(file), options))
        return started[-1]

    yield start
    for client in started:
        client.close("finished")


WEIGHTS = {"0000/kernel": (3, 8), "0001/bias": (8,), "0002/kernel": (8, 1), "0003/bias": (1,)}


def message(file, round, **changes):  # noqa: A002
    """What the server sends to train a round."""
    draw = np.random.default_rng(round)
    arrays = {name: draw.normal(size=shape).astype("float32") for name, shape in WEIGHTS.items()}
    told = {"server-round": round, "local-epochs": 1, "run": "deployed", "clients": 2, **terms_of(load_settings(file))}
    return RecordDict({"arrays": to_record(arrays), "config": ConfigRecord({**told, **changes})})


def trained(reply):
    """The weights of an answer."""
    assert "error" not in reply["client"], reply["client"]
    return to_arrays(reply["arrays"])


def same(first, second):
    return all(np.array_equal(first[name], second[name]) for name in WEIGHTS)


def rounds(folder):
    with (folder / "metrics.csv").open() as table:
        return [int(row["epoch"]) for row in csv.DictReader(table)]


def test_a_client_that_was_started_again_answers_a_repeated_round_and_the_next_one_the_same(file, joined, tmp_path):
    client = joined()
    answers = {number: trained(client.answer("train", message(file, number))) for number in (1, 2, 3)}
    assert same(trained(client.answer("train", message(file, 3))), answers[3])
    client.close("finished")
    again = joined()
    assert same(trained(again.answer("train", message(file, 3))), answers[3])
    folder = tmp_path / "runs" / "deployed" / "clients" / "1"
    assert rounds(folder) == [1, 2, 3]
    assert len(json.loads((folder / "run.json").read_text())["resumed"]) == 1
    refused = again.answer("train", message(file, 2))
    assert "Expected that of a round before 2" in refused["client"]["error"]
    assert refused["client"]["proc-id"] == 1


def test_settings_that_differ_are_named_with_both_values(file, joined):
    client = joined(settings=load_settings(file, ["batch_size=4", "learning_rate=0.01"]))
    error = client.answer("train", message(file, 1))["client"]["error"]
    assert "batch_size (expected 8 as on the server, got 4)" in error
    assert "learning_rate (expected 0.05 as on the server, got 0.01)" in error
    assert client.run_dir is None


def test_another_model_is_refused_with_both_shapes(file, joined):
    file.write_text(SETTINGS.replace('Dense(hparams["hidden"]', "Dense(9"))
    error = joined().answer("train", message(file, 1))["client"]["error"]
    assert "0000/kernel. Expected shape (3, 9), got (3, 8)" in error


@pytest.mark.parametrize(
    ("number", "changes", "says"),
    [
        (2, {}, "The number of this client, 2, is too large. Expected 0 to 1, as there are 2 clients"),
        (0, {"run": "../elsewhere"}, "The run name '../elsewhere' cannot be used"),
        (0, {"clients": "two"}, "Use the same release of experiments_manager on both sides"),
    ],
)
def test_what_a_server_says_is_not_believed_blindly(file, joined, tmp_path, number, changes, says):
    assert says in joined(number).answer("train", message(file, 1, **changes))["client"]["error"]
    assert not (tmp_path / "elsewhere").exists()


def test_a_client_without_data_says_so_and_its_run_has_failed(file, joined, tmp_path):
    file.write_text(SETTINGS.replace("    return x[partition:60", "    return None\n    return x[partition:60"))
    error = joined().answer("train", message(file, 1))["client"]["error"]
    assert "client 1 has no training data" in error
    manifest = json.loads((tmp_path / "runs" / "deployed" / "clients" / "1" / "run.json").read_text())
    assert manifest["state"] == "failed"
