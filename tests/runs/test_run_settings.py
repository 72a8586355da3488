"""The settings of a run, from its own snapshot, with further overrides."""

import pytest

from experiments_manager.runs import create_run
from experiments_manager.runs.run_settings import load_run_settings
from experiments_manager.settings import load_settings

SETTINGS = """
model_file = "first_model.py"
loss = "mse"
learning_rate = 0.1
epochs = 3


def dataset(split): ...
"""


@pytest.mark.parametrize("further", [{"epochs": 5}, ["epochs=5"], "epochs=5"])
def test_a_run_that_began_with_another_model_file_takes_further_overrides(tmp_path, monkeypatch, further):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mysettings_line.py").write_text(SETTINGS)
    for name in ("first_model.py", "second_model.py"):
        (tmp_path / name).write_text(f"def model(): return {name!r}\n")
    settings = load_settings(tmp_path / "mysettings_line.py", {"model_file": "second_model.py"})
    run = create_run(tmp_path / "runs", "line")
    run.start(settings_file=settings.file, model_file=settings.model_file, overrides=settings.overrides)
    resumed = load_run_settings(run, further)
    assert resumed.epochs == 5
    assert resumed.call("model") == "second_model.py"
