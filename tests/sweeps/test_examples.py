"""The sweeps among the examples are valid, and the script that hyperopt drives gets what hyperopt wants."""

import runpy
from pathlib import Path

import pytest

import experiments_manager as em
from experiments_manager.sweeps.sweep_file import load_sweep_file

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "hyperopt"


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("mysweep_*.py")), ids=lambda file: file.stem)
def test_each_sweep_file_loads_and_names_a_settings_file(file):
    sweep = load_sweep_file(file)
    assert sweep.settings_file.is_file()
    assert sweep.settings_file == sweep.settings_file.resolve()


@pytest.mark.slow
def test_the_script_trains_a_trial_in_its_own_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(EXAMPLES / "hyperopt_curve_fitting.py"))
    result = names["train"]({"hidden_units": 5, "learning_rate": 0.1})
    manifest = em.load_run(result["sessionFolder"]).manifest
    assert result["status"] == "ok"
    assert result["loss"] == manifest["metrics"]["loss"]
    assert manifest["hparams"] == {"hidden_units": 5, "learning_rate": 0.1, "noise": 0.1}
