"""The best settings, as a file and as a command line."""

import textwrap

import pytest

from experiments_manager.settings import load_settings
from experiments_manager.sweeps.results.best import best_settings, train_command

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
