"""The space that `sweep new` guesses, and the file that it writes."""

import pytest

from experiments_manager.sweeps.errors import SweepError
from experiments_manager.sweeps.search.space_inference import guess, write_sweep_file
from experiments_manager.sweeps.sweep_file import load_sweep_file


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("learning_rate", 0.01, 'hp.loguniform("learning_rate", log(0.001), log(0.1))'),
        ("weight_decay", 1e-4, 'hp.loguniform("weight_decay", log(1e-05), log(0.001))'),
        ("dropout", 0.4, 'hp.uniform("dropout", 0.0, 0.6)'),
        ("momentum", 0.9, 'hp.uniform("momentum", 0.5, 0.99)'),
        ("hidden_units", 64, 'hp.choice("hidden_units", [16, 32, 64, 128, 256])'),
        ("hidden_units", 10, 'hp.quniform("hidden_units", 2, 40, 1)'),
        ("num_layers", 2, 'hp.quniform("num_layers", 1, 5, 1)'),
        ("use_bias", True, 'hp.choice("use_bias", [True, False])'),
        ("activation", "relu", 'hp.choice("activation", ["relu", "gelu", "tanh"])'),
        ("margin", 0.0, 'hp.uniform("margin", 0.0, 1.0)'),
        ("margin", 2.0, 'hp.uniform("margin", 0.0, 4.0)'),
        ("noise", 0.1, None),
        ("procID", 3, None),
        ("name", "x", None),
        ("shape", [3, 4], None),
    ],
)
def test_the_space_follows_from_name_and_value(name, value, expected):
    assert guess(name, value) == expected


@pytest.fixture
def settings_file(tmp_path):
    file = tmp_path / "mysettings_line.py"
    file.write_text(
        "hparams = {'learning_rate': 0.01, 'units': 8, 'noise': 0.1}\n"
        "loss = 'mse'\nlearning_rate = hparams['learning_rate']\n"
        "def dataset(split): ...\ndef model(hparams): ...\n"
    )
    return file


def test_the_file_that_is_written_is_a_valid_sweep_file(settings_file):
    file = write_sweep_file(settings_file)
    sweep = load_sweep_file(file)
    assert file.name == "mysweep_line.py"
    assert sweep.settings_file == settings_file
    assert set(sweep.space.names) == {"learning_rate", "units"}
    assert '# "noise"' in file.read_text()


def test_a_file_that_is_there_is_not_written_over(settings_file):
    write_sweep_file(settings_file)
    with pytest.raises(SweepError, match="exists already"):
        write_sweep_file(settings_file)


def test_without_numbers_to_vary_it_says_so(tmp_path):
    file = tmp_path / "mysettings_bare.py"
    file.write_text(
        "hparams = {'name': 'x'}\nloss = 'mse'\nlearning_rate = 0.1\ndef dataset(split): ...\ndef model(hparams): ...\n"
    )
    with pytest.raises(SweepError, match="no hparams that a space could be guessed from"):
        write_sweep_file(file)
