"""Time series on regular grids, from CSV files or data frames."""

from __future__ import annotations

import dataclasses
import logging
import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.common.tables.problems import DataFileError, refuse
from experiments_manager.data.times import import_pandas, name_lines, read_times

if TYPE_CHECKING:
    import pandas

_log = logging.getLogger(__name__)
_MORE = 8
"""Places of one kind of problem that a message names."""
_TOLERANCE = 1e-3
"""Part of a step by which times may be off the grid, since floats do not add up."""

_ROUNDED = 1e-3
"""Part of a column's range that may be lost by rounding without a word."""
_SPARSE, _SMALL = 1000, 1_000_000
"""Steps to a row, and further ones, that a series may have before its times are taken for mistaken."""


@dataclasses.dataclass(frozen=True)
class Series:
    """Measurements at equal steps of time.

    Attributes:
        name: Where it comes from.
        times: `datetime64` or numbers of shape [steps], at equal distances; dates with offsets are in UTC.
        values: `float32` of shape [steps, columns]; NaN where there is no measurement.
        columns: Names of the columns.
        filled: `bool` of shape [steps, columns]: where `fill_gaps` drew a line; `None` is nowhere.
    """

    name: str
    times: np.ndarray
    values: np.ndarray
    columns: tuple[str, ...]
    filled: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.times)

    def with_columns(self, further: Mapping[str, np.ndarray]) -> Series:
        """Return the series with further columns by name, of shape [steps] each, such as a calendar."""
        values = np.column_stack([self.values, *further.values()]).astype(np.float32)
        filled = None if self.filled is None else np.pad(self.filled, ((0, 0), (0, len(further))))
        return dataclasses.replace(self, values=values, columns=(*self.columns, *further), filled=filled)


def read_series(
    path: Path | str,
    columns: Sequence[str],
    *,
    time_column: str = "time",
    step: Any = None,
    day_first: bool | None = None,
    pattern: str = "*.csv",
) -> list[Series]:
    """Read a CSV file, or all of a folder, as a series each.

    Rows may be missing: the series gets NaN there. Nothing is filled in; see `fill_gaps`.

    Args:
        path: A file, or a folder of files.
        columns: The columns to read, covariates included.
        time_column: Column of the times: dates, or numbers.
        step: Time from one row to the next, e.g. `"1h"`, `"month"` or a number; `None` takes the most frequent one of
            each file.
        day_first: Whether 1/2/2024 is in February (or in January); `None` sees it from rows such as 31/1/2024, and
            refuses a file without any.
        pattern: The files of a folder.

    Returns:
        The series in the order of the files' names.

    Raises:
        DataFileError: Files that are missing or empty, columns that are missing or hold words, times that are missing,
            double or off the grid; of all files, all at once.
    """
    path = Path(path)
    files = sorted(path.glob(pattern)) if path.is_dir() else [path]
    if not files:
        raise DataFileError(f"{path} holds no files {pattern}. Expected a CSV file a series.")
    found, problems = [], []
    for file in files:
        try:
            frame = _read_frame(file, [time_column, *columns])
            found.append(
                series_of(frame, columns, time_column=time_column, step=step, day_first=day_first, name=str(file))
            )
        except DataFileError as error:
            problems.append(str(error))
    refuse(problems or _different_steps(found))
    return found


def _different_steps(found: Sequence[Series]) -> list[str]:
    """Tell where steps are of other lengths than in the first series: windows would mix hours and days."""
    first = _step_of(found[0])
    return [
        f"{each.name} has a row every {_shown(_step_of(each))}. Expected one every {_shown(first)}, as in "
        f"{found[0].name}. Give `step`, or read files of different steps apart."
        for each in found[1:]
        if _step_of(each).dtype != first.dtype or not abs(_step_of(each) / first - 1) < _TOLERANCE
    ]


def _step_of(series: Series) -> Any:
    return series.times[1] - series.times[0]


def _read_frame(file: Path, wanted: Sequence[str]) -> pandas.DataFrame:
    pandas = import_pandas()
    try:
        header = pandas.read_csv(file, skipinitialspace=True, header=None, nrows=1, dtype=str)
        frame = pandas.read_csv(file, skipinitialspace=True)
    except FileNotFoundError:
        raise DataFileError(f"{file} not found. Expected a CSV file, or a folder of them.") from None
    except (OSError, UnicodeDecodeError, pandas.errors.ParserError, pandas.errors.EmptyDataError) as error:
        raise DataFileError(f"{file} cannot be read: {error}. Expected a CSV file in UTF-8 with a header.") from error
    _require_once(str(file), wanted, header.iloc[0].tolist())  # pandas would number them
    if not isinstance(frame.index, pandas.RangeIndex):  # pandas takes the first fields for names of the rows
        raise DataFileError(
            f"{file} has rows with more fields than its header has names. Expected as many, parted by commas. Decimal "
            "commas, or commas at the ends of lines, make such."
        )
    return frame


def _require_once(name: str, wanted: Sequence[str], names: Sequence[str]) -> None:
    if double := sorted({column for column in wanted if names.count(column) > 1}):
        raise DataFileError(f"{name} has {', '.join(map(repr, double))} twice. Expected one column of a name.")


def series_of(
    frame: pandas.DataFrame,
    columns: Sequence[str],
    *,
    time_column: str = "time",
    step: Any = None,
    day_first: bool | None = None,
    name: str = "series",
) -> Series:
    """Make a series of a data frame, as `read_series` does of a file.

    Raises:
        DataFileError: As there.
    """
    wanted, known = [time_column, *columns], [str(column) for column in frame.columns]
    _require_once(name, wanted, known)
    missing = [f"{column!r} ({did_you_mean(column, known) or 'not there'})" for column in wanted if column not in known]
    if missing:
        raise DataFileError(f"{name} has no column {', '.join(missing)}. Its columns are {', '.join(known)}.")
    if len(frame) < 2:
        raise DataFileError(f"{name} has {len(frame)} rows. Expected two or more.")
    values, problems = _numbers(frame, columns, name)
    times, wrong = read_times(frame[time_column], day_first)
    if problems + wrong:
        raise DataFileError(f"{name}: {' '.join(problems + wrong)}")
    if problem := _problem_of_step(step, times):
        raise DataFileError(f"{name}: {problem}")
    if step == "month":
        times = times.astype("datetime64[M]")
    order = np.argsort(times, kind="stable")
    times, values = times[order], values[order]
    distance = _most_frequent(np.diff(times)) if step is None else _as_distance(step, times)
    ratios = (times - times[0]) / distance
    places = np.rint(ratios).astype(int)
    if wrong := _problem_of_grid(times, ratios - places, places, _shown(distance)):
        raise DataFileError(f"{name}: {wrong}")
    if places[-1] > _SPARSE * len(places) + _SMALL:
        raise DataFileError(
            f"{name}: {len(places)} rows from {_shown(times[0])} to {_shown(times[-1])} are {places[-1] + 1} steps of "
            f"{_shown(distance)}. Expected most of them to be there. Correct the times, or give a longer `step`."
        )
    grid = np.full((places[-1] + 1, values.shape[1]), np.nan, np.float32)
    grid[places] = values
    return Series(name, times[0] + np.arange(len(grid)) * distance, grid, tuple(columns))


def _numbers(frame: pandas.DataFrame, columns: Sequence[str], name: str) -> tuple[np.ndarray, list[str]]:
    pandas = import_pandas()
    found, problems = [], []
    for column in columns:
        read = pandas.to_numeric(frame[column], errors="coerce")
        words = np.flatnonzero((read.isna() & frame[column].notna()).to_numpy())
        words = [row for row in words if str(frame[column].iloc[row]).strip()]
        infinite = np.flatnonzero(np.abs(read.to_numpy(float)) > np.finfo(np.float32).max)
        if len(words):
            problems.append(f"Column {column!r} holds words in {name_lines(words)}. Expected numbers, or nothing.")
        if len(infinite):
            problems.append(f"Column {column!r} is infinite in {name_lines(infinite)}. Expected less than 3e38.")
        found.append(_as_float32(read.to_numpy(float), f"{name}: column {column!r}"))
    return np.stack(found, axis=1) if found else np.empty((len(frame), 0), np.float32), problems


def _as_float32(read: np.ndarray, what: str) -> np.ndarray:
    """Convert, and tell where numbers as large as metres of a map or times lose their changes."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = read.astype(np.float32)
        lost, there = np.abs(read - values), np.isfinite(values)
    if there.any() and (most := lost[there].max()) > _ROUNDED * (spread := np.ptp(read[there])) > 0:
        _log.warning(
            "%s varies by %g only, of which float32 rounds up to %g away. Subtract its mean.", what, spread, most
        )
    return values


def _most_frequent(distances: np.ndarray) -> Any:
    """Return the step that occurs most often; the smallest one of several."""
    forward = distances[distances > np.zeros(1, distances.dtype)]
    if not len(forward):
        return np.ones(1, distances.dtype)[0]
    ordered = np.sort(forward)
    ratios = np.round(ordered / ordered[len(ordered) // 2], 6)  # floats differ in their last bits
    _, firsts, counts = np.unique(ratios, return_index=True, return_counts=True)
    found = counts.argmax()
    return ordered[firsts[found] + counts[found] // 2]


def _problem_of_step(step: Any, times: np.ndarray) -> str:
    if step is None or (step == "month" and times.dtype.kind == "M"):
        return ""
    try:
        distance = _as_distance(step, times)
        if distance > 0 * distance and np.isfinite(distance):
            return ""
    except (ValueError, TypeError):
        pass
    expected = "a time span, e.g. '1h' or '7D', or 'month'" if times.dtype.kind == "M" else "a number above 0, as times"
    return f"step={step!r} is no step. Expected {expected}."


def _as_distance(step: Any, times: np.ndarray) -> Any:
    if times.dtype.kind != "M":
        return float(step)
    if step == "month":
        return np.timedelta64(1, "M")
    if isinstance(step, numbers.Number):
        raise TypeError("a number has no unit")
    return import_pandas().Timedelta(step).to_timedelta64().astype("timedelta64[ns]")


def _problem_of_grid(times: np.ndarray, off: np.ndarray, places: np.ndarray, distance: str) -> str:
    stray = times[np.abs(off) > _TOLERANCE]
    if len(stray):
        return f"Times off the grid: {_some(stray)}. Expected one row every {distance}; `step` changes that."
    double = times[1:][np.diff(places) == 0]
    if not len(double):
        return ""
    clocks = " Where clocks were set back, write times with their offset from UTC." if times.dtype.kind == "M" else ""
    return f"Double times: {_some(double)}. Expected one row every {distance}. Remove the others.{clocks}"


def _some(times: np.ndarray) -> str:
    shown = ", ".join(_shown(time) for time in times[:_MORE])
    return f"{shown}{', …' if len(times) > _MORE else ''}"


def _shown(time: Any) -> str:
    pandas = import_pandas()
    if isinstance(time, np.datetime64):
        return str(pandas.Timestamp(time))
    if isinstance(time, np.timedelta64):
        return "month" if np.datetime_data(time)[0] == "M" else str(pandas.Timedelta(time))
    return f"{time:g}"


def fill_gaps(series: Series, longest: int) -> Series:
    """Fill gaps of up to `longest` steps by straight lines; longer ones, and both ends, stay NaN.

    Such a line ends at what came after the gap. So `make_windows` leaves out forecasts that begin in one or just after
    it, whose past would tell of their future.
    """
    values = series.values.copy()
    filled = np.zeros(values.shape, bool) if series.filled is None else series.filled.copy()
    for column, lines in zip(values.T, filled.T, strict=True):
        there = np.flatnonzero(~np.isnan(column))
        lengths = np.diff(there) - 1
        for number in np.flatnonzero((lengths > 0) & (lengths <= longest)):
            first, last = there[number], there[number + 1]
            column[first : last + 1] = np.linspace(column[first], column[last], last - first + 1)
            lines[first + 1 : last] = True
    return dataclasses.replace(series, values=values, filled=filled)
