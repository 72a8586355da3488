from pathlib import Path

import pytest

from experiments_manager.settings import SettingsError, load_settings
from experiments_manager.settings.legacy.working_directory import as_in_run_folder, session_folder, working_directory

LEGACY = """
workingFolder = 'experiments/examples/series'
def get_input_pipeline(raw_data_files_folder, isTraining, batch_size, nbEpoch): pass
def get_learningRate(): return 0.1
def get_total_loss(model): return 'mse'
def model(usersettings): pass
"""


@pytest.fixture
def legacy(write):
    return load_settings(write(LEGACY, complete=False))


def test_in_a_run_hooks_of_legacy_files_are_a_folder_deeper_than_the_run(legacy, tmp_path):
    run_folder = tmp_path / "experiments" / "examples" / "series" / "run"
    with working_directory(legacy, session_folder(legacy, run_folder)):
        assert Path.cwd() == run_folder / "expe_0"
        assert Path("../../../../..").resolve() == tmp_path
    assert Path.cwd() == tmp_path


def test_a_dry_run_looks_for_data_from_as_deep_and_leaves_nothing(legacy, tmp_path):
    (tmp_path / "data").mkdir()
    with as_in_run_folder(legacy):
        assert Path("../../../../../data").resolve() == tmp_path / "data"
        Path("written_by_a_hook.txt").write_text("something")
    assert Path.cwd() == tmp_path
    assert not (tmp_path / "experiments").exists()


def test_a_dry_run_leaves_what_was_there_before(legacy, tmp_path):
    kept = tmp_path / "experiments" / "examples" / "other_run"
    kept.mkdir(parents=True)
    with as_in_run_folder(legacy):
        pass
    assert [path.name for path in kept.parent.iterdir()] == ["other_run"]


def test_a_dry_run_that_fails_leaves_nothing_either(legacy, tmp_path):
    with pytest.raises(RuntimeError), as_in_run_folder(legacy):
        raise RuntimeError
    assert Path.cwd() == tmp_path
    assert not (tmp_path / "experiments").exists()


def test_a_folder_that_cannot_be_made_is_named(legacy, tmp_path):
    (tmp_path / "experiments").write_text("a file in the way")
    with (
        pytest.raises(SettingsError, match="mysettings_case.py:2: working_dir: no folder can be made there"),
        as_in_run_folder(legacy),
    ):
        pass


def test_canonical_files_stay_where_the_command_was_given(write, tmp_path):
    settings = load_settings(write(""))
    assert session_folder(settings, tmp_path / "run") == tmp_path / "run"
    with as_in_run_folder(settings), working_directory(settings, tmp_path / "run"):
        assert Path.cwd() == tmp_path
    assert not (tmp_path / "run").exists()
