"""The settings of a run, from its own snapshot, with further overrides."""

import pytest

from experiments_manager.runs import RunError, create_run
from experiments_manager.runs.reproduction.reproduce import command_line
from experiments_manager.runs.run_settings import altered_files, load_run_settings, warn_changed_files
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


def test_a_copy_that_was_altered_or_is_missing_is_told_and_refused_where_the_run_is_to_be_reproduced(tmp_path, caplog):
    (tmp_path / "mysettings_line.py").write_text(
        "import parts\n" + SETTINGS.replace('model_file = "first_model.py"', "")
    )
    (tmp_path / "parts.py").write_text("units = 3\n")
    run = create_run(tmp_path / "runs", "line")
    run.start(settings_file=tmp_path / "mysettings_line.py")
    run.update(state="finished")
    warn_changed_files(run)
    assert (altered_files(run), caplog.text) == ([], "")
    assert "train" in command_line(run, tmp_path / "python", tmp_path, "again")
    copy = run.settings_dir / "parts.py"
    copy.write_text("units = 4\n")
    assert altered_files(run) == [copy]
    warn_changed_files(run)
    assert f"{copy}: not as it was when the run began" in caplog.text
    with pytest.raises(RunError, match=r"parts\.py: not as it was when the run began.*Restore it"):
        command_line(run, tmp_path / "python", tmp_path, "again")
    copy.unlink()
    assert altered_files(run) == [copy]
    run.update(sha256={})  # as of a release that noted none
    assert altered_files(run) == []
