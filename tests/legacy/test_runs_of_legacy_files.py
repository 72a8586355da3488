"""Settings files of the earlier framework in their own layout of folders, unmodified: dry run, training, resume."""

import shutil
from pathlib import Path

import numpy as np
import pytest

LEGACY = Path(__file__).parent / "examples"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The folder that commands are given in, with a settings file and, beside it, the data that it reads."""
    for name in ("mysettings_two_series.py", "model_two_series.py"):
        shutil.copy(LEGACY / name, tmp_path)
    (tmp_path / "measured").mkdir()
    rows = np.column_stack([np.sin(np.arange(40) / 3), np.arange(40) % 2])
    np.savetxt(tmp_path / "measured" / "house.csv", rows, delimiter=",", header="value,isfree", comments="")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def settings(place):
    from experiments_manager.settings import load_settings

    return load_settings("mysettings_two_series.py")


def test_a_dry_run_finds_the_data_that_a_run_would_find_and_leaves_nothing(settings, place, tensorflow):
    from experiments_manager.training.dry_run.dry_run import dry_run

    before = sorted(path.name for path in place.iterdir() if path.name != "__pycache__")
    lines = dry_run(settings).lines
    assert any(line.startswith("one step") and "mean_absolute_error" in line for line in lines)
    assert sorted(path.name for path in place.iterdir() if path.name != "__pycache__") == before


@pytest.mark.slow
def test_it_trains_exports_and_is_resumed_from_another_folder(settings, place, monkeypatch, resume, tensorflow):
    from experiments_manager.runs import open_run
    from experiments_manager.training.engine.runner import start_run

    result = start_run(settings)
    run = open_run(result.run_dir)
    assert (result.state, result.epochs) == ("finished", 2)
    assert run.path.parent == place / "experiments" / "examples" / "series"
    assert (run.path / "expe_0").is_dir()
    assert run.manifest["overrides"]["train_data_dir"] == str(place / "measured")
    served = tensorflow.saved_model.load(str(result.exported_model)).signatures["serving_default"]
    assert set(served.structured_outputs) == {"future"}

    monkeypatch.chdir(place / "measured")
    assert resume(run.path, {"epochs": 3}).result.epochs == 3


def test_code_of_the_file_reads_from_its_settings_where_the_run_is(place, tensorflow):
    from experiments_manager.runs import open_run
    from experiments_manager.settings import load_settings
    from experiments_manager.training.engine.runner import start_run

    code = """

read = []
def prepare_datasets(usersettings):
  from pathlib import Path
  read.append((usersettings.recoverFromCheckpoint, usersettings.sessionFolder == os.getcwd()))
  Path("note.txt").write_text(usersettings.model_export_filename)
"""
    path = place / "mysettings_two_series.py"
    path.write_text(path.read_text() + code)
    settings = load_settings(path)
    run = open_run(start_run(settings).run_dir)
    assert settings.module.read == [(False, True)]
    assert (run.path / "expe_0" / "note.txt").read_text() == str(run.exports_dir)


@pytest.mark.parametrize(
    ("source", "lowered"),
    [
        ("", "Learning rate lowered from 0.05 to 0.005."),
        ("reduce_lr_patience = None", None),
        ("callbacks = {'reduceLROnPlateau_callback': keras.callbacks.Callback()}", None),
        ("learning_rate = keras.optimizers.schedules.ExponentialDecay(0.05, 10, 0.9)", None),
    ],
)
def test_the_learning_rate_falls_on_a_plateau_unless_that_is_turned_off(experiment, source, lowered):
    base = """
        epochs = 4
        early_stopping_patience = 3
        monitor = "constant"
        def get_metrics(model, loss):
            def constant(y_true, y_pred):
                return 0.0 * tf.reduce_sum(y_pred, -1)
            return constant
    """
    trained = experiment([base, source + "\n"])
    assert [text for text in trained.messages if text.startswith("Learning rate")] == ([lowered] if lowered else [])


def test_a_callback_under_the_key_of_early_stopping_takes_its_place(experiment):
    source = """
        epochs = 4
        early_stopping_patience = 1
        monitor = "constant"
        def get_metrics(model, loss):
            def constant(y_true, y_pred):
                return 0.0 * tf.reduce_sum(y_pred, -1)
            return constant
        def addon_callbacks(model, train_samples, val_samples):
            return {"earlystopping_callback": keras.callbacks.Callback()}
    """
    assert len(experiment(source).epochs) == 4
