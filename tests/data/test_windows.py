"""Windows lie whole in their part of the time, and hold no gaps."""

import numpy as np
import pytest

from experiments_manager.data import DataFileError, Series, fill_gaps, make_windows, seasonal_naive


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


def test_whole_windows_of_two_parts_share_no_step(count):
    parts = [
        make_windows([count(100)], 10, 5, targets=["value"], part=part, whole=True) for part in ((0, 0.7), (0.7, 1))
    ]
    assert parts[0].future.max() < parts[1].past[..., 0].min() == 70


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
    with pytest.raises(ValueError, match="season=0 is no season"):
        seasonal_naive(windows, 0)


def test_no_past_was_filled_from_its_future(count):
    filled = fill_gaps(count(12, gaps=[5, 6]), 2)
    windows = make_windows([filled], 3, 2, targets=["value"])
    assert windows.starts.tolist() == [3, 4, 5, 8, 9, 10], "at 6 and 7 the line to step 7 would be seen"
    assert windows.filled[..., 0].tolist()[:4] == [[False, False], [False, True], [True, True], [False, False]]
    assert windows.past[3, :, 0].tolist() == [5, 6, 7]


def test_what_is_known_beforehand_may_be_filled(count):
    series = fill_gaps(count(12, gaps=[5, 6]), 2)
    assert 6 in make_windows([series], 3, 2, targets=["load"], known=["value"]).starts


def test_further_columns_are_not_filled(count):
    series = fill_gaps(count(8, gaps=[3]), 1).with_columns({"double": 2 * np.arange(8)})
    assert series.columns == ("value", "load", "double")
    assert series.filled.sum(axis=0).tolist() == [1, 0, 0]
    assert series.values[:, 2].tolist() == list(range(0, 16, 2))


def test_columns_of_all_series_are_the_same(count):
    other = Series("other", np.arange(9.0), count(9).values, ("load", "value"))
    with pytest.raises(DataFileError, match="other has the columns load, value. Expected value, load in this order"):
        make_windows([count(9), other], 3, 2, targets=["value"])
    with pytest.raises(DataFileError, match="count has no column 'vlaue'.*Did you mean `value`"):
        make_windows([count(9)], 3, 2, targets=["vlaue"])


@pytest.mark.parametrize("wrong", [{"past": 0}, {"horizon": 0}, {"stride": 0}])
def test_windows_have_steps(count, wrong):
    with pytest.raises(DataFileError, match="is 0. Expected 1 or more"):
        make_windows([count(9)], **{"past": 3, "horizon": 2, **wrong}, targets=["value"])


def test_series_that_give_no_window_are_named(count, caplog):
    short = Series("short", np.arange(3.0), count(3).values, ("value", "load"))
    make_windows([count(9), short], 3, 2, targets=["value"])
    assert "1 of 2 series are too short" in caplog.text
    assert caplog.text.rstrip().endswith("short")


def test_only_numbers_that_are_used_have_to_be_there(count):
    series = count(8, gaps=[7])
    assert make_windows([series], 5, 2, targets=["load"]).starts.tolist() == [5, 6]
    assert make_windows([series], 5, 2, targets=["load"], known=["value"]).starts.tolist() == [5]
    series.values[7, 0] = np.inf
    assert make_windows([series], 5, 2, targets=["value"]).starts.tolist() == [5]


def test_the_naive_forecast_is_of_the_target(count):
    windows = make_windows([count(8)], 3, 2, targets=["load"])
    assert seasonal_naive(windows, 1)[0].tolist() == [1002, 1002]
    assert seasonal_naive(windows, 1, column=0)[0].tolist() == [2, 2]


@pytest.mark.parametrize("part", [(0.7, 0.3), (0.5, 1.5), (-0.1, 1)])
def test_a_part_lies_within_the_time(count, part):
    with pytest.raises(DataFileError, match="Expected two shares of the time from 0 to 1"):
        make_windows([count(9)], 3, 2, targets=["value"], part=part)
