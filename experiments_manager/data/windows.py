"""Windows of time series, that a forecast is trained on, and the forecasts that it must beat."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from experiments_manager.data.series import Series
from experiments_manager.data.tables import DataFileError


@dataclasses.dataclass(frozen=True)
class Windows:
    """What a forecast is made from, and what it should be.

    Attributes:
        past: `float32` of shape [windows, past, columns].
        future: `float32` of shape [windows, horizon, targets].
        known: `float32` of shape [windows, horizon, covariates]: columns that are known beforehand, at the times of the
            forecast.
        series: Index of each window's series, of shape [windows].
        starts: Step of its series at which the forecast begins, of shape [windows].
    """

    past: np.ndarray
    future: np.ndarray
    known: np.ndarray
    series: np.ndarray
    starts: np.ndarray

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
) -> Windows:
    """Cut all whole windows whose forecast lies in a part of the time; the past may reach back before it.

    Windows that hold NaN are left out.

    Args:
        series: The series; all have the same columns.
        past: Steps that the model sees.
        horizon: Steps that it forecasts.
        targets: Columns to forecast.
        known: Columns that are known beforehand, such as the calendar.
        part: Share of each series' time in which forecasts lie, e.g. (0, 0.7) for training.
        stride: Steps from one window to the next.

    Raises:
        DataFileError: There is no window.
    """
    pieces: list[tuple[np.ndarray, ...]] = []
    for number, each in enumerate(series):
        wanted = [each.columns.index(name) for name in targets]
        beforehand = [each.columns.index(name) for name in known]
        first = max(past, int(np.ceil(part[0] * len(each))))
        starts = np.arange(first, int(part[1] * len(each)) - horizon + 1, stride)
        if not len(starts):
            continue
        spans = np.lib.stride_tricks.sliding_window_view(each.values, past + horizon, axis=0)[starts - past]
        whole = ~np.isnan(spans).any(axis=(1, 2))
        spans, starts = spans[whole].swapaxes(1, 2), starts[whole]
        pieces.append(
            (
                spans[:, :past],
                spans[:, past:, wanted],
                spans[:, past:, beforehand],
                np.full(len(starts), number),
                starts,
            )
        )
    if not sum(len(piece[-1]) for piece in pieces):
        lengths = ", ".join(f"{each.name} {len(each)}" for each in series)
        raise DataFileError(
            f"No window of {past} + {horizon} steps without a gap in the part {part[0]:g} to {part[1]:g}. "
            f"Expected longer series, got {lengths} steps. Make the windows shorter, or fill gaps."
        )
    return Windows(*(np.ascontiguousarray(np.concatenate(arrays)) for arrays in zip(*pieces, strict=True)))


def seasonal_naive(windows: Windows, season: int, *, column: int = 0) -> np.ndarray:
    """Forecast what was a season before; with `season=1` the last value, the naive forecast.

    Returns:
        Of shape [windows, horizon].

    Raises:
        ValueError: The windows do not see a whole season.
    """
    past, horizon = windows.past[..., column], windows.future.shape[1]
    if season > past.shape[1]:
        raise ValueError(f"season={season} is longer than the {past.shape[1]} steps of the windows' past.")
    return past[:, past.shape[1] - season + np.arange(horizon) % season]
