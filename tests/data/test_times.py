"""Dates are read as they were meant, or refused; nothing is guessed."""

import numpy as np
import pandas as pd
import pytest

from experiments_manager.data import DataFileError, read_series, series_of
from experiments_manager.data.times import read_times


def times(*rows, day_first=None):
    found, problems = read_times(pd.Series(rows, name="time"), day_first)
    assert not problems
    return found.astype("datetime64[m]").astype(str).tolist()


def problem(*rows):
    _, problems = read_times(pd.Series(rows, name="time"))
    return " ".join(problems)


@pytest.mark.parametrize(
    "written", ["%d.%m.%Y", "%d/%m/%Y", "%d-%m-%Y %H:%M", "%m/%d/%Y", "%Y%m%d", "%Y/%m/%d", "%d. %m. %Y", "%d,%m,%Y"]
)
def test_a_year_of_days_stays_in_its_order(tmp_path, written):
    days = pd.date_range("2023-01-01", "2023-12-31")
    file = tmp_path / "days.csv"
    pd.DataFrame({"time": days.strftime(written), "value": range(365)}).to_csv(file, index=False)  # quotes commas
    (series,) = read_series(file, ["value"])
    assert series.values[:, 0].tolist() == list(range(365))
    assert series.times[31] == np.datetime64("2023-02-01")


def test_dates_with_dots_have_the_day_first():
    assert times("01.02.2024 10:30", "02.02.2024") == ["2024-02-01T10:30", "2024-02-02T00:00"]


def test_one_row_shows_what_comes_first():
    assert times("1/2/2024", "31/1/2024")[0] == "2024-02-01T00:00"
    assert times("1/2/2024", "1/31/2024 1:00 PM") == ["2024-01-02T00:00", "2024-01-31T13:00"]


def test_what_no_row_shows_is_told():
    assert "may have the day or the month first in lines 2, 3." in problem("1/2/2024", "2/3/2024 10:00", "3/3/2024")
    assert times("1/2/2024", day_first=True) == ["2024-02-01T00:00"]
    assert times("1/2/2024", day_first=False) == ["2024-01-02T00:00"]
    with pytest.raises(DataFileError, match="`day_first` tells"):
        series_of(pd.DataFrame({"time": ["1/2/2024", "1/3/2024"], "value": [1, 2]}), ["value"])


def test_both_orders_in_one_column_are_refused():
    assert "the day first in line 2 and the month first in line 3" in problem("31/1/2024", "1/31/2024")


@pytest.mark.parametrize(
    "row", ["10:30", "24-01-05", "5", "12:00:00.1234", "10:00:00 +0100", "2024-13-01", None, "1500-01-01", "9999-12-31"]
)
def test_a_time_without_its_date_is_refused(row):
    assert "holds no time in line 3. Expected dates with years of four digits" in problem("2024-01-01 10:00", row)


def test_time_zones_stand_in_all_rows_or_in_none():
    assert times("2024-10-27T02:30+02:00", "2024-10-27T02:30+01:00", "2024-10-27 02:30Z") == [
        "2024-10-27T00:30",
        "2024-10-27T01:30",
        "2024-10-27T02:30",
    ]
    assert "has time zones, but not in line 3." in problem("2024-10-27T02:30+02:00", "2024-10-27 02:30")


def test_numbers_that_are_no_dates_stay_numbers():
    for numbers in ([20240130, 20240131, 20240132], [1.5, 2.5], [1700000000, 1700003600]):
        found, problems = read_times(pd.Series(numbers, name="time"))
        assert not problems
        assert found.tolist() == numbers


def test_dates_of_digits_may_have_a_time():
    assert times(202401312359, 202402010000) == ["2024-01-31T23:59", "2024-02-01T00:00"]
    assert times(202312, 202401)[1] == "2024-01-01T00:00"
