"""Windows of time series, that a forecast is trained on, and the forecasts that it must beat."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np

from experiments_manager.common.suggestions import did_you_mean
from experiments_manager.common.tables.problems import DataFileError
from experiments_manager.data.series import Series

_log = logging.getLogger(__name__)
_MORE = 8
"""Series that a message names."""


@dataclasses.dataclass(frozen=True)
class Windows:
    """What a forecast is made from, and what it should be.

    Attributes:
        past: `float32` of shape [windows, past, columns].
        future: `float32` of shape [windows, horizon, targets].
        known: `float32` of shape [windows, horizon, covariates]: columns that are known beforehand, at the times of the
            forecast.
        filled: `bool` of shape [windows, horizon, targets]: what `fill_gaps` drew instead of a measurement. Measures
            of forecasts should leave it out.
        series: Index of each window's series, of shape [windows].
        starts: Step of its series at which the forecast begins, of shape [windows].
        targets: Where each target is among the columns of the past.
    """

    past: np.ndarray
    future: np.ndarray
    known: np.ndarray
    filled: np.ndarray
    series: np.ndarray
    starts: np.ndarray
    targets: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.starts)


def make_windows(
    series: Sequence[Series],
    past: int,
    horizon: int,
    *,
    targets: Sequence[str],
    known: Sequence[str] = (),
    part: tuple[float, float] = (0.0, 1.0),
    stride: int = 1,
    whole: bool = False,
) -> Windows:
    """Cut all windows whose forecast lies in a part of the time; the past may reach back before it.

    Windows are left out where a number is missing in the past, or in what is forecast or known; and where the last step
    before the forecast was filled by `fill_gaps`, from what came later, unless that is known beforehand.

    Args:
        series: The series; all have the same columns.
        past: Steps that the model sees.
        horizon: Steps that it forecasts.
        targets: Columns to forecast.
        known: Columns that are known beforehand, such as the calendar.
        part: Share of each series' time in which forecasts lie, e.g. (0, 0.7) for training.
        stride: Steps from one window to the next.
        whole: The past lies in the part as well. So windows of two parts share no step, as is due where the model is
            not to forecast but to tell or draw the whole window.

    Raises:
        DataFileError: There is no window, the columns of the series differ or lack some, or a number is below 1.
    """
    _require_columns(series, [*targets, *known])
    for name, value in {"past": past, "horizon": horizon, "stride": stride}.items():
        if value < 1:
            raise DataFileError(f"{name} is {value}. Expected 1 or more steps.")
    if not 0 <= part[0] < part[1] <= 1:
        raise DataFileError(f"part is {part}. Expected two shares of the time from 0 to 1, the smaller one first.")
    pieces = []
    for number, each in enumerate(series):
        first = int(np.ceil(part[0] * len(each)))
        first = first + past if whole else max(past, first)
        starts = np.arange(first, int(part[1] * len(each)) - horizon + 1, stride)
        if len(starts):
            pieces.append(_cut(each, number, starts, past, horizon, targets, known))
    if not sum(len(piece.starts) for piece in pieces):
        lengths = ", ".join(f"{each.name} {len(each)}" for each in series)
        raise DataFileError(
            f"No window of {past} + {horizon} steps without a gap in the part {part[0]:g} to {part[1]:g}. "
            f"Expected longer series, got {lengths} steps. Make the windows shorter, or fill gaps."
        )
    _tell_of_unused(series, {number for piece in pieces for number in piece.series.tolist()}, part)
    fields = [field.name for field in dataclasses.fields(Windows) if field.name != "targets"]
    joined = {name: np.concatenate([getattr(piece, name) for piece in pieces]) for name in fields}
    return Windows(**{name: np.ascontiguousarray(array) for name, array in joined.items()}, targets=pieces[0].targets)


def _cut(
    each: Series, number: int, starts: np.ndarray, past: int, horizon: int, targets: Sequence[str], known: Sequence[str]
) -> Windows:
    """Cut the windows of one series whose forecasts begin at some of its steps, without those that have gaps."""
    wanted = [each.columns.index(name) for name in targets]
    beforehand = [each.columns.index(name) for name in known]
    spans = np.lib.stride_tricks.sliding_window_view(each.values, past + horizon, axis=0)[starts - past]
    filled = np.zeros(each.values.shape, bool) if each.filled is None else each.filled
    unforeseen = [column for column in range(len(each.columns)) if column not in beforehand]
    there = np.isfinite(spans[..., :past]).all(axis=(1, 2))
    there &= np.isfinite(spans[:, [*wanted, *beforehand], past:]).all(axis=(1, 2))
    usable = there & ~filled[starts - 1][:, unforeseen].any(axis=1)
    spans, starts = spans[usable].swapaxes(1, 2), starts[usable]
    return Windows(
        past=spans[:, :past],
        future=spans[:, past:, wanted],
        known=spans[:, past:, beforehand],
        filled=filled[starts[:, np.newaxis] + np.arange(horizon)][..., wanted],
        series=np.full(len(starts), number),
        starts=starts,
        targets=tuple(wanted),
    )


def _tell_of_unused(series: Sequence[Series], used: set[int], part: tuple[float, float]) -> None:
    if unused := [each.name for number, each in enumerate(series) if number not in used]:
        shown = ", ".join(unused[:_MORE]) + (", …" if len(unused) > _MORE else "")
        _log.warning(
            "%d of %d series are too short or have too many gaps to give a window in the part %g to %g: %s",
            *(len(unused), len(series), *part, shown),
        )


def _require_columns(series: Sequence[Series], wanted: Sequence[str]) -> None:
    for each in series:
        if each.columns != series[0].columns:
            raise DataFileError(
                f"{each.name} has the columns {', '.join(each.columns)}. Expected {', '.join(series[0].columns)} in "
                f"this order, as {series[0].name} has them."
            )
        for name in wanted:
            if name not in each.columns:
                hint = did_you_mean(name, each.columns)
                raise DataFileError(
                    f"{each.name} has no column {name!r}. Expected one of {', '.join(each.columns)}. {hint}".rstrip()
                )


def seasonal_naive(windows: Windows, season: int, *, column: int | None = None) -> np.ndarray:
    """Forecast what was a season before; with `season=1` the last value, the naive forecast.

    Args:
        windows: The windows.
        season: Steps.
        column: Which column of the past; `None` takes the first target.

    Returns:
        Of shape [windows, horizon].

    Raises:
        ValueError: The windows do not see a whole season.
    """
    past = windows.past[..., windows.targets[0] if column is None else column]
    horizon = windows.future.shape[1]
    if season > past.shape[1]:
        raise ValueError(f"season={season} is longer than the {past.shape[1]} steps of the windows' past.")
    if season < 1:
        raise ValueError(f"season={season} is no season. Expected 1 or more steps.")
    return past[:, past.shape[1] - season + np.arange(horizon) % season]
