import numpy as np
import pytest
import tensorflow as tf

from experiments_manager.settings import SettingsError, UserCodeError, load_settings
from experiments_manager.training.errors import DataError, TrainingError
from experiments_manager.training.feeds.augmentation import augmented
from experiments_manager.training.setup.boundary import at_work, is_ours


def _error_of(call):
    with pytest.raises(Exception) as caught:  # noqa: PT011  (whichever it is)
        call()
    return caught.value


def test_an_error_is_ours_where_its_innermost_frame_is_and_only_there():
    assert is_ours(_error_of(_raise_in_package))
    assert not is_ours(_error_of(lambda: tf.reshape(tf.zeros(3), [2, 2])))


def _raise_in_package():
    return augmented(None, (1, 2), None)  # which calls the first


def test_what_a_library_refuses_is_the_users_and_what_we_raise_is_not(settings_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # this file is none of the user's then
    settings = load_settings(settings_file())
    with pytest.raises(DataError, match="dataset: InvalidArgumentError"), at_work(settings, "dataset"):
        tf.reshape(tf.zeros(3), [2, 2])
    with pytest.raises(SettingsError, match="loss: .*Expected a loss"), at_work(settings, "loss"):
        np.linalg.inv(np.zeros((2, 3)))
    with pytest.raises(TypeError), at_work(settings, "loss"):
        _raise_in_package()
    with pytest.raises(TrainingError, match="as it is"), at_work(settings, "loss"):
        raise TrainingError("as it is")


def test_an_error_in_a_hook_names_its_line(settings_file):
    settings = load_settings(settings_file("def loss():\n    return 1 / 0\n"))
    with pytest.raises(UserCodeError, match=r"mysettings_\w+\.py:\d+: loss: ZeroDivisionError"):
        settings.resolve("loss")
