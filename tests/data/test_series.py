"""Series are read onto regular grids, gaps and all; all that is wrong with the files is said at once."""

import numpy as np
import pandas as pd
import pytest

from experiments_manager.data import DataFileError, fill_gaps, read_series, series_of


def frame(times, values):
    return pd.DataFrame({"time": times, "value": values})


def test_a_missing_row_is_nan():
    series = series_of(frame([0, 1, 3, 4], [1, 2, 4, 5]), ["value"])
    assert series.times.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(series.values[:, 0], [1, 2, np.nan, 4, 5])


def test_rows_may_come_in_any_order():
    assert series_of(frame([2, 0, 1], [3, 1, 2]), ["value"]).values[:, 0].tolist() == [1, 2, 3]


def test_dates_make_a_grid_of_their_most_frequent_step():
    dates = ["2024-01-01", "2024-01-08", "2024-01-22"]
    series = series_of(frame(dates, [1, 2, 3]), ["value"])
    assert len(series) == 4
    assert series.times[2] == np.datetime64("2024-01-15")


def test_dates_with_time_zones_are_one_time():
    series = series_of(frame(["2024-01-01T00:00+02:00", "2024-01-01T00:00Z"], [1, 2]), ["value"])
    assert series.times[1] - series.times[0] == np.timedelta64(2, "h")


def test_a_step_may_be_given():
    assert len(series_of(frame(["2024-01-01", "2024-01-03"], [1, 2]), ["value"], step="1D")) == 3


def test_months_are_steps_of_different_lengths():
    series = series_of(frame(["2024-01-31", "2024-02-29", "2024-04-30"], [1, 2, 4]), ["value"], step="month")
    np.testing.assert_array_equal(series.values[:, 0], [1, 2, np.nan, 4])
    assert series.times[2] == np.datetime64("2024-03")


def test_times_that_do_not_add_up_exactly_are_on_the_grid():
    series = series_of(frame([0.1 * step for step in range(50) if step != 20], range(49)), ["value"])
    assert len(series) == 50
    assert np.isnan(series.values[20, 0])


def test_a_folder_gives_a_series_a_file_in_the_order_of_names(tmp_path):
    for name in ("b", "a"):
        frame([0, 1], [1, 2]).to_csv(tmp_path / f"{name}.csv", index=False)
    assert [series.name[-5:] for series in read_series(tmp_path, ["value"])] == ["a.csv", "b.csv"]


def test_the_problems_of_all_files_are_said_at_once(tmp_path):
    (tmp_path / "double.csv").write_text("time,value\n0,1\n1,2\n1,3\n")
    (tmp_path / "words.csv").write_text("time,value\n2024-01-01,1\n2024-01-02,high\n2024-01-03,3\nsoon,4\n")
    (tmp_path / "names.csv").write_text("time,vlaue\n0,1\n1,2\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "bytes.csv").write_bytes(b"time,value\n0,\xff\xfe\n")
    with pytest.raises(DataFileError) as caught:
        read_series(tmp_path, ["value"])
    message = str(caught.value)
    assert "double.csv: Double times: 1" in message
    assert "words.csv: Column 'value' holds words in line 3." in message
    assert "Column 'time' holds no time in line 5." in message
    assert "names.csv has no column 'value' (Did you mean" in message
    assert "empty.csv cannot be read" in message
    assert "bytes.csv cannot be read" in message


@pytest.mark.parametrize(
    ("times", "values", "said"),
    [
        ([0, 1, 2, 3.5, 4.5], [1, 2, 3, 4, 5], "Times off the grid: 3.5, 4.5"),
        ([0, 1], [1, np.inf], "is infinite in line 3"),
        ([0], [1], "1 rows. Expected two or more"),
        ([0, 0], [1, 2], "Double times: 0"),
    ],
)
def test_what_makes_no_grid_is_refused(times, values, said):
    with pytest.raises(DataFileError, match=said):
        series_of(frame(times, values), ["value"])


@pytest.mark.parametrize("line", ["2024-01-0{},{},5", "2024-01-0{},{},"])
def test_more_fields_than_names_do_not_move_the_columns(tmp_path, line):
    (tmp_path / "a.csv").write_text("time,value\n" + "".join(line.format(day, day) + "\n" for day in range(1, 5)))
    with pytest.raises(DataFileError, match="rows with more fields than its header has names"):
        read_series(tmp_path, ["value"])


def test_a_name_stands_for_one_column(tmp_path):
    (tmp_path / "a.csv").write_text("time,value,value\n0,1,2\n1,1,2\n")
    with pytest.raises(DataFileError, match=r"a\.csv has 'value' twice"):
        read_series(tmp_path, ["value"])
    twice = pd.DataFrame([[0, 1, 2], [1, 1, 2]], columns=["time", "value", "value"])
    with pytest.raises(DataFileError, match="has 'value' twice"):
        series_of(twice, ["value"])


def test_files_of_different_steps_are_refused_unless_one_is_given(tmp_path):
    for name, times in {"a": [0, 1, 2], "b": [0, 2, 4], "c": [0, 1, 3]}.items():
        frame(times, times).to_csv(tmp_path / f"{name}.csv", index=False)
    with pytest.raises(DataFileError, match=r"^\S+b\.csv has a row every 2\. Expected one every 1, as in \S+a\.csv.*$"):
        read_series(tmp_path, ["value"])
    assert [len(series) for series in read_series(tmp_path, ["value"], step=1)] == [3, 5, 4]


def test_numbers_beyond_float32_are_told():
    with pytest.raises(DataFileError, match="'value' is infinite in line 3. Expected less than 3e38"):
        series_of(frame([0, 1], [1, 1e39]), ["value"])


def test_changes_that_float32_rounds_away_are_told(caplog):
    series_of(frame([0, 1, 2], [101325.1, 101025.2, None]), ["value"])
    series_of(frame([0, 1, 2], [0.1, 0.1, 0.1]), ["value"])
    assert not caplog.text
    series_of(frame([0, 1, 2], [5400000.01, 5400000.02, None]), ["value"], name="north")
    assert "north: column 'value' varies by 0.01 only" in caplog.text


@pytest.mark.parametrize("step", [0, -1, "1h", "month", float("nan")])
def test_a_step_of_numbers_is_one(step):
    with pytest.raises(DataFileError, match="is no step. Expected a number above 0"):
        series_of(frame([0, 1], [1, 2]), ["value"], step=step)


@pytest.mark.parametrize("step", [1, "0h", "-1D", "week", []])
def test_a_step_of_dates_is_a_time_span(step):
    with pytest.raises(DataFileError, match=r"is no step. Expected a time span, e\.g\. '1h'"):
        series_of(frame(["2024-01-01", "2024-01-02"], [1, 2]), ["value"], step=step)


def test_the_most_frequent_step_is_exact_beside_longer_ones():
    hours = np.cumsum([0, 1, 1, 1, 1, 2, 3, 3, 3, 6, 6])
    times = np.datetime64("2024-01-01") + hours * np.timedelta64(1, "h")
    series = series_of(frame(times, hours), ["value"])
    assert series.times[-1] == times[-1]
    assert len(series) == hours[-1] + 1


def test_one_mistaken_time_does_not_fill_the_memory():
    times = ["1970-01-01 00:00:00", *(f"2024-01-01 00:00:0{second}" for second in range(5))]
    with pytest.raises(DataFileError, match=r"6 rows from 1970-01-01 00:00:00 to 2024-\S+ 00:00:04 are \d+ steps"):
        series_of(frame(times, range(6)), ["value"])


def test_an_hour_that_came_twice_is_told_how_to_mend():
    times = pd.date_range("2024-10-27", periods=6, freq="h", tz="Europe/Paris")
    with pytest.raises(DataFileError, match=r"Double times: 2024-10-27 02:00:00\..*write times with their offset"):
        series_of(frame(times.tz_localize(None).astype(str), range(6)), ["value"])
    assert len(series_of(frame(times.astype(str), range(6)), ["value"])) == 6
    assert len(series_of(frame(times, range(6)), ["value"])) == 6


def test_a_folder_without_files_is_refused(tmp_path):
    with pytest.raises(DataFileError, match=r"holds no files \*\.csv"):
        read_series(tmp_path, ["value"])


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataFileError, match=r"none\.csv not found"):
        read_series(tmp_path / "none.csv", ["value"])


def test_short_gaps_are_filled_by_straight_lines_and_long_ones_stay():
    series = series_of(frame([0, 1, 3, 7, 8], [0, 1, 3, 7, 8]), ["value"])
    filled = fill_gaps(series, 1)
    np.testing.assert_array_equal(filled.values[:, 0], [0, 1, 2, 3, np.nan, np.nan, np.nan, 7, 8])
    assert np.isnan(series.values[2, 0])
    np.testing.assert_array_equal(fill_gaps(series, 3).values[:, 0], np.arange(9))
