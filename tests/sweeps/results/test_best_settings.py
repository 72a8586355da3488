"""The best settings, as a file and as a command line."""

import textwrap

import pytest

from experiments_manager.settings import load_settings
from experiments_manager.sweeps.results.best_settings import best_settings, train_command

HOOKS = """
loss = "mse"
def dataset(split): ...
def model(hparams): ...
"""


@pytest.fixture
def write(tmp_path):
    def write_file(text):
        file = tmp_path / "mysettings_line.py"
        file.write_text(textwrap.dedent(text) + HOOKS)
        return file

    return write_file


def loaded(tmp_path, text):
    other = tmp_path / "elsewhere"
    other.mkdir()
    file = other / "best_settings.py"
    file.write_text(text)
    return load_settings(file)


def test_values_take_the_place_of_those_in_the_file_and_what_is_derived_follows(write, tmp_path):
    file = write("hparams = {'rate': 0.1, 'units': 3}\nepochs = 50\nlearning_rate = hparams['rate']\n")
    text = best_settings(file, {"rate": 0.5, "epochs": 5, "batch_size": 7}, ["rate", "units"], None, "Best")
    found = loaded(tmp_path, text)
    assert found.hparams == {"rate": 0.5, "units": 3}
    assert (found.learning_rate, found.epochs, found.batch_size) == (0.5, 5, 7)
    assert "epochs = 50" not in text


def test_values_that_are_computed_are_followed_by_the_new_ones(write, tmp_path):
    file = write("hparams = dict(rate=0.1)\nepochs = 10 * 5\nlearning_rate = hparams['rate']\n")
    found = loaded(tmp_path, best_settings(file, {"hparams.rate": 0.5, "epochs": 5}, ["rate"], None, "Best"))
    assert (found.learning_rate, found.epochs, found.hparams) == (0.5, 5, {"rate": 0.5})


def test_the_copy_finds_what_lies_beside_the_original(write, tmp_path):
    (tmp_path / "helpers.py").write_text("RATE = 0.25\n")
    (tmp_path / "mymodel.py").write_text("def model(hparams): ...\n")
    file = write(
        '''
        """A docstring."""
        from __future__ import annotations
        from pathlib import Path
        from helpers import RATE
        learning_rate = RATE
        model_file = "mymodel.py"
        train_data_dir = str(Path(__file__).parent)
        '''
    )
    file.write_text(file.read_text().replace("def model(hparams): ...\n", ""))
    found = loaded(tmp_path, best_settings(file, {}, [], str(tmp_path / "mymodel.py"), "Best"))
    assert found.learning_rate == 0.25
    assert found.train_data_dir == str(tmp_path)
    assert found.model_file == tmp_path / "mymodel.py"


def test_the_command_names_the_file_as_seen_from_here_and_quotes_values(write, tmp_path, monkeypatch):
    file = write("learning_rate = 0.1\n")
    monkeypatch.chdir(tmp_path)
    command = train_command(file, {"hparams.rate": 0.1, "hparams.kind": "a b", "hparams.layers": [1, 2]})
    assert command == (
        "experiments_manager train mysettings_line.py --set hparams.rate=0.1 --set 'hparams.kind=a b' "
        "--set 'hparams.layers=[1, 2]'"
    )


LEGACY = """
hparams = {"learningRate": 0.1, "nbEpoch": 50}
nbEpoch = hparams["nbEpoch"]
weights_moving_averages = True
early_stopping_patience = 10
serving_client_timeout_int_secs = 1

def get_learningRate(): return hparams["learningRate"]
def get_optimizer(model, loss, learning_rate): return "rmsprop"
def get_total_loss(model): return "mse"
def get_input_pipeline(folder, isTraining, batch_size, nbEpoch): ...
def model(usersettings): ...
"""


@pytest.fixture
def legacy_file(tmp_path):
    file = tmp_path / "mysettings_legacy.py"
    file.write_text(LEGACY)
    return file


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"learningRate": 0.5, "nbEpoch": 7}, {"epochs": 7, "hparams": {"learningRate": 0.5, "nbEpoch": 7}}),
        ({"epochs": 9, "batch_size": 5}, {"epochs": 9, "batch_size": 5}),
        ({"ema_momentum": 0.9}, {"ema_momentum": 0.9}),
        ({"ema_momentum": None}, {"ema_momentum": None}),
        ({"weights_moving_averages": False}, {"ema_momentum": None}),
        ({"early_stopping_patience": 3}, {"early_stopping_patience": 3}),
        ({"session_name": "found"}, {"session_name": "found"}),
    ],
)
def test_a_legacy_file_gets_the_values_by_its_own_names(legacy_file, tmp_path, overrides, expected):
    text = best_settings(legacy_file, overrides, ["learningRate", "nbEpoch"], None, "Best")
    found = loaded(tmp_path, text)
    assert found.dialect.name == "legacy"
    assert {name: getattr(found, name) for name in expected} == expected
    assert not {"epochs =", "ema_momentum ="} & {line[: line.find("=") + 1] for line in text.splitlines()}


@pytest.mark.parametrize("overrides", [{"learning_rate": 0.25}, {"get_learningRate": 0.25}])
def test_a_value_takes_the_place_of_a_function(legacy_file, write, tmp_path, overrides):
    found = loaded(tmp_path, best_settings(legacy_file, overrides, ["learningRate"], None, "Best"))
    assert found.call("learning_rate") == 0.25
    file = write("hparams = {'rate': 0.1}\ndef learning_rate(hparams): return hparams['rate']\n")
    (tmp_path / "canonical").mkdir()
    found = loaded(tmp_path / "canonical", best_settings(file, {"learning_rate": 0.25}, ["rate"], None, "Best"))
    assert found.call("learning_rate") == 0.25


def test_names_that_are_bound_in_a_branch_or_a_loop_get_the_new_values_too(write, tmp_path):
    file = write(
        """
        import os
        learning_rate = 0.1
        if os.environ.get("LONG"):
            epochs = 500
        else:
            epochs = 50
        for batch_size in (1, 2):
            pass

        class Own:
            patience = 3
        """
    )
    found = loaded(tmp_path, best_settings(file, {"epochs": 5, "batch_size": 7}, [], None, "Best"))
    assert (found.epochs, found.batch_size) == (5, 7)
