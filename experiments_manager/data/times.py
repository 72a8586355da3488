"""Times of a table's rows, from dates however they are written, or from numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments_manager.common.errors import UserError
from experiments_manager.common.installation import install_command

if TYPE_CHECKING:
    import pandas

_MORE = 8
"""Lines of one kind of problem that a message names."""
_DAY_AND_MONTH = r"(?<![\d./-])(\d{1,2})\s*([.,/\s-])\s*(\d{1,2})\s*\2\s*(\d{4})(?!\d)"
"""A day and a month, in whichever order, before their year."""
_OFFSET = r"(?:\d:\d\d|[tT]\d\d).*?(?:[zZ]|UTC|GMT|[+-]\d\d(?::?\d\d)?)$"
"""A time of the day with its distance from UTC."""
_YEAR = r"(?<!\d)(?:\d{4}|\d{8})(?!\d)"
_YEARS = 1678, 2261
"""What 64 bits of nanoseconds hold."""
_COMPACT = {6: "%Y%m", 8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""Dates that look like numbers, by how many digits they have."""


def read_times(column: pandas.Series, day_first: bool | None = None) -> tuple[np.ndarray, list[str]]:
    """Read a column of dates or numbers.

    Args:
        column: Numbers, dates, or text. Numbers that are all dates such as 20240131 are read as these.
        day_first: Whether 1/2/2024 is in February (or in January); `None` sees it from rows such as 31/1/2024. Dates
            with dots have the day first.

    Returns:
        `datetime64[ns]`, in UTC where the text has offsets, or `float64`, of shape [rows]; and what is wrong.
    """
    pandas = import_pandas()
    if pandas.api.types.is_numeric_dtype(column):
        numbers = column.to_numpy(float)
        compact = _compact_dates(numbers)
        times, broken, problems = (numbers, ~np.isfinite(numbers), []) if compact is None else (compact, None, [])
    else:
        text, problems = column, []
        if not pandas.api.types.is_datetime64_any_dtype(column):
            text, problems = _unambiguous(
                pandas.Series([str(time).strip() for time in column], dtype=object), day_first
            )
        parsed = pandas.to_datetime(text, errors="coerce", utc=True, format="mixed")
        parsed = parsed.where(parsed.dt.year.between(*_YEARS))  # others overflow in silence
        times, broken = parsed.dt.tz_localize(None).to_numpy("datetime64[ns]"), parsed.isna().to_numpy()
    if broken is not None and broken.any():
        where = name_lines(np.flatnonzero(broken))
        expected = f"Expected dates with years of four digits from {_YEARS[0]} to {_YEARS[1]}, or numbers."
        problems = [f"holds no time in {where}. {expected}", *problems]
    return times, [f"Column {column.name!r} {problem}" for problem in problems]


def _compact_dates(numbers: np.ndarray) -> np.ndarray | None:
    """Return the dates that numbers such as 20240131 are; `None` where they are numbers."""
    pandas = import_pandas()
    if not len(numbers) or not (np.isfinite(numbers).all() and (numbers == np.rint(numbers)).all()):
        return None
    digits = len(str(int(numbers[0])))
    if digits not in _COMPACT or not ((years := numbers // 10 ** (digits - 4)) == np.clip(years, 1900, 2100)).all():
        return None
    if digits == 6 and len(np.unique(years)) == 1:  # the same grid as numbers, which they may be
        return None
    text = pandas.Series(numbers.astype(np.int64)).astype(str)
    parsed = pandas.to_datetime(text, errors="coerce", format=_COMPACT[digits])
    return None if parsed.isna().any() else parsed.to_numpy("datetime64[ns]")


def _unambiguous(text: pandas.Series, day_first: bool | None) -> tuple[pandas.Series, list[str]]:
    """Write days and months in the order of ISO 8601; leave nothing of what would have to be guessed."""
    problems = []
    parts = text.str.extract(_DAY_AND_MONTH)
    rows = parts[0].notna()
    if rows.any():
        first, second, dotted = parts[0].astype(float), parts[2].astype(float), parts[1] == "."
        is_day, is_month = (first > 12) | dotted, (second > 12) & ~dotted
        if day_first is None and is_day.any() and is_month.any():
            lines = name_lines(np.flatnonzero(is_day)[:1]), name_lines(np.flatnonzero(is_month)[:1])
            problems.append(f"has the day first in {lines[0]} and the month first in {lines[1]}. Expected one of both.")
        elif day_first is None and not is_day.any() and not is_month.any() and (first != second)[rows].any():
            where = name_lines(np.flatnonzero(rows & (first != second)))
            problems.append(
                f"may have the day or the month first in {where}. Expected dates such as 2024-01-31; `day_first` "
                "tells how these are meant."
            )
        days_first = dotted | (is_day.any() if day_first is None else day_first)
        day, month = parts[0].where(days_first, parts[2]), parts[2].where(days_first, parts[0])
        iso = parts[3] + "-" + month.str.zfill(2) + "-" + day.str.zfill(2)
        text = text.where(
            ~rows, [re.sub(_DAY_AND_MONTH, str(date), each) for each, date in zip(text, iso, strict=True)]
        )
    offsets = text.str.contains(_OFFSET)
    if offsets.any() and not offsets.all():
        where = name_lines(np.flatnonzero(~offsets))
        problems.append(f"has time zones, but not in {where}. Expected one in each, or none.")
    bare = text.str.replace(r":\d\d[.,]\d+", ":00", regex=True).str.replace(
        r"(\d:\d\d.*?)[+-]\d{4}$", r"\1", regex=True
    )
    return text.where(bare.str.contains(_YEAR)), problems


def name_lines(rows: Sequence[int]) -> str:
    """Name the lines of a file, whose header is line 1."""
    shown = ", ".join(str(int(row) + 2) for row in rows[:_MORE])
    return f"{'line' if len(rows) == 1 else 'lines'} {shown}{', …' if len(rows) > _MORE else ''}"


def import_pandas() -> Any:
    """Return pandas.

    Raises:
        UserError: It is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise UserError(f"Series are read by pandas, which is missing. Run: {install_command('timeseries')}") from error
    return pandas
