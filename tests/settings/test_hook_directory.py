from pathlib import Path

import pytest

from experiments_manager.settings import SettingsError, load_settings
from experiments_manager.settings.hook_directory import as_in_run_folder, session_folder, working_directory

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


def test_a_file_that_is_loaded_again_within_a_run_finds_its_model_file_from_where_it_was_started(tmp_path, monkeypatch):
    (tmp_path / "examples").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "examples" / "model_a.py").write_text("def model(usersettings): return 'made'\n", encoding="utf-8")
    (tmp_path / "examples" / "mysettings_a.py").write_text(
        "def get_input_pipeline(raw_data_files_folder, isTraining, batch_size, nbEpoch): pass\n"
        "def get_learningRate(): return 0.1\ndef get_total_loss(model): return 'mse'\n"
        "model_file = 'examples/model_a.py'\nhparams = {'procID': 1}\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    settings = load_settings("examples/mysettings_a.py")
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = load_settings(settings.file, {"hparams.procID": -5}, start_dir=settings.start_dir)
    assert (again.call("model"), again.hparams["procID"], again.start_dir) == ("made", -5, tmp_path)
    with pytest.raises(SettingsError, match=r"model_file: file 'examples/model_a.py' not found"):
        load_settings(settings.file)
