"""Signals are read from NumPy archives, and all that is wrong with one is said at once."""

import zipfile

import numpy as np
import pytest

from experiments_manager.data import DataFileError, read_signals


@pytest.fixture
def archive(tmp_path):
    """Writes an archive of the arrays that it is given."""

    def write(**arrays):
        path = tmp_path / "signals.npz"
        np.savez(path, **arrays)
        return path

    return write


def test_signals_get_a_channel_and_float32(archive):
    signals, labels = read_signals(archive(x_train=np.eye(3), y_train=[0, 1, 2]), "train", length=3)
    assert signals.shape == (3, 3, 1)
    assert signals.dtype == np.float32
    assert labels.tolist() == [0, 1, 2]


def test_several_channels_are_kept(archive):
    signals, _ = read_signals(archive(x_train=np.ones((2, 5, 4))), "train", channels=4)
    assert signals.shape == (2, 5, 4)


def test_labels_may_be_missing(archive):
    assert read_signals(archive(x_test=np.eye(2)), "test")[1] is None


def test_all_problems_are_said_at_once(archive):
    broken = np.ones((3, 4))
    broken[1, 2] = np.nan
    path = archive(x_train=broken, y_train=[0, 1])
    with pytest.raises(DataFileError) as caught:
        read_signals(path, "train", length=5)
    message = str(caught.value)
    assert "signals of 4 samples. Expected 5" in message
    assert "1 signals hold NaN or infinity, at 1" in message
    assert "y_train has the shape [2]. Expected [3]" in message


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x_trian": np.eye(2)}, "no array x_train. Expected it among x_trian. Did you mean"),
        ({"x_train": np.array(["a"])}, "Expected numbers"),
        ({"x_train": np.ones(4)}, r"shape \[4\]. Expected \[signals, length\]"),
        ({"x_train": np.ones((0, 4))}, "Expected"),
        ({"x_train": np.eye(2), "y_train": np.array([0.5, 1])}, "Expected whole numbers from 0"),
        ({"x_train": np.eye(2), "y_train": np.array([-1, 1])}, "Expected whole numbers from 0"),
        ({"x_train": np.ones((2, 4, 2))}, "2 channels. Expected 1"),
        ({"x_train": np.ones((2, 0))}, r"shape \[2, 0\]. Expected"),
        ({"x_train": np.array([[1e39, 1]])}, "1 signals hold NaN or infinity, at 0. Expected numbers below 3e38"),
        ({"x_train": np.eye(2), "y_train": np.array([2**32, 1])}, "goes up to 4294967296. Expected"),
        ({"x_train": np.eye(2), "y_train": np.array([2**63, 1], np.uint64)}, "goes up to 9223372036854775808"),
    ],
)
def test_an_archive_that_holds_something_else_is_refused(archive, arrays, said):
    with pytest.raises(DataFileError, match=said):
        read_signals(archive(**arrays), "train")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataFileError, match=r"none\.npz not found"):
        read_signals(tmp_path / "none.npz", "train")


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "text.npz"
    path.write_text("not an archive")
    with pytest.raises(DataFileError, match="cannot be read"):
        read_signals(path, "train")


def test_an_array_without_an_archive_is_refused(tmp_path):
    np.save(tmp_path / "one.npy", np.eye(2))
    with pytest.raises(DataFileError, match="holds one array"):
        read_signals(tmp_path / "one.npy", "train")


def test_a_member_that_is_no_array_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "signals.npz", "w") as archive:
        archive.writestr("x_train.npy", "text")
    with pytest.raises(DataFileError, match="Expected numbers"):
        read_signals(tmp_path / "signals.npz", "train")
