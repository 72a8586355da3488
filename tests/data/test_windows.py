"""Windows lie whole in their part of the time, and hold no gaps."""

import numpy as np
import pytest

from experiments_manager.data import DataFileError, Series, make_windows, seasonal_naive


@pytest.fixture
def count():
    """Makes a series that counts, with a second column a thousand higher."""

    def make(steps, gaps=()):
        values = np.stack([np.arange(steps), 1000 + np.arange(steps)], axis=1).astype(np.float32)
        values[list(gaps), 0] = np.nan
        return Series("count", np.arange(steps, dtype=float), values, ("value", "load"))

    return make


def test_a_window_is_followed_by_its_future(count):
    windows = make_windows([count(10)], 4, 2, targets=["value"])
    assert windows.starts.tolist() == [4, 5, 6, 7, 8]
    assert windows.past.shape == (5, 4, 2)
    assert windows.past[0, :, 0].tolist() == [0, 1, 2, 3]
    assert windows.future[0, :, 0].tolist() == [4, 5]


def test_parts_share_no_future(count):
    parts = [make_windows([count(100)], 10, 5, targets=["value"], part=part) for part in ((0, 0.7), (0.7, 1))]
    assert parts[0].future.max() < parts[1].future.min()
    assert parts[1].past.min() == 60, "the past of a later part may reach back"


def test_windows_with_gaps_are_left_out(count):
    windows = make_windows([count(12, gaps=[5])], 3, 1, targets=["value"])
    assert windows.starts.tolist() == [3, 4, 9, 10, 11]


def test_windows_name_their_series(count):
    windows = make_windows([count(5), count(6)], 3, 1, targets=["value"], stride=2)
    assert windows.series.tolist() == [0, 1, 1]


def test_what_is_known_beforehand_comes_with_the_forecast(count):
    windows = make_windows([count(8)], 3, 2, targets=["value"], known=["load"])
    assert windows.known[0, :, 0].tolist() == [1003, 1004]


def test_no_window_at_all_is_refused_with_the_lengths(count):
    with pytest.raises(DataFileError, match=r"No window of 8 \+ 4 steps .* got count 10 steps"):
        make_windows([count(10)], 8, 4, targets=["value"])


def test_the_seasonal_naive_forecast_repeats_the_last_season(count):
    windows = make_windows([count(12)], 6, 5, targets=["value"])
    assert seasonal_naive(windows, 3)[0].tolist() == [3, 4, 5, 3, 4]
    assert seasonal_naive(windows, 1)[0].tolist() == [5] * 5
    with pytest.raises(ValueError, match="longer than the 6 steps"):
        seasonal_naive(windows, 7)
