"""What a legacy settings file imports is read as the file itself; what others have installed is not."""

import sys

import pytest

from experiments_manager.legacy.imported_modules import LegacyModules
from experiments_manager.settings import UserCodeError, load_settings

HELPER = """import tensorflow as tf
class Error(tf.keras.metrics.Metric):
    def __init__(self, name):
        super().__init__(name)
    def update_state(self, *_): pass
    def result(self): return 0.0
optimizer = lambda rate: tf.keras.optimizers.legacy.Adam(lr=rate)
"""
LEGACY = """
def get_input_pipeline(raw_data_files_folder, isTraining, batch_size, nbEpoch): pass
def get_learningRate(): return 0.1
def get_total_loss(model): return 'mse'
def get_metrics(model, loss): return [ours.Error('wrong')]
def get_optimizer(model, loss, learning_rate): return ours.optimizer(0.25)
model_file = 'model_a.py'
"""
CANONICAL = """
def dataset(split): pass
def model(): return ours.Error('wrong')
loss = 'mse'
learning_rate = 0.1
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").touch()
    (tmp_path / "parts" / "ours.py").write_text(HELPER, encoding="utf-8")
    (tmp_path / "model_a.py").write_text("def model(usersettings): pass\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_helper_is_read_with_the_names_of_today_and_stays_as_it_is(folder, tensorflow, caplog):
    (folder / "mysettings_a.py").write_text("from parts import ours\n" + LEGACY, encoding="utf-8")
    settings = load_settings("mysettings_a.py")
    assert settings.resolve("metrics", model=None, loss=None)[0].name == "wrong"
    assert float(settings.resolve("optimizer", model=None, loss=None, learning_rate=0.1).learning_rate) == 0.25
    assert "parts/ours.py:4: super().__init__(name) is not in Keras 3" in caplog.text
    assert (folder / "parts" / "ours.py").read_text() == HELPER
    assert not list((folder / "parts").rglob("ours*.pyc")), "compiled code of other names must not be found by others"
    assert not any(isinstance(finder, LegacyModules) for finder in sys.meta_path)


def test_a_helper_of_a_canonical_file_is_left_alone(folder, tensorflow):
    (folder / "mysettings_b.py").write_text("from parts import ours\n" + CANONICAL, encoding="utf-8")
    with pytest.raises(UserCodeError, match="wrong"):
        load_settings("mysettings_b.py").call("model")


def test_only_the_users_modules_and_those_of_the_framework_are_found(folder, monkeypatch):
    for name in ("venv/lib/site-packages/installed", "elsewhere/deeplearningtools", "elsewhere/theirs"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").touch()
    for path in ("venv/lib/site-packages", "elsewhere"):
        monkeypatch.syspath_prepend(folder / path)
    monkeypatch.syspath_prepend(folder)
    finder = LegacyModules([folder])
    found = {
        name: finder.find_spec(name, None)
        for name in ("parts", "model_a", "installed", "deeplearningtools", "theirs", "json")
    }
    assert {name for name, spec in found.items() if spec is not None} == {"parts", "model_a", "deeplearningtools"}
    assert finder.find_spec("parts.ours", [str(folder / "parts")]) is not None
    assert finder.find_spec("installed.ours", [str(folder / "venv" / "lib" / "site-packages" / "installed")]) is None
