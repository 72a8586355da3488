"""Forecasts with quantiles: half a year of weekly carbon dioxide at Mauna Loa, or the series of your own CSV files.

experiments_manager train examples/timeseries/mysettings_forecast.py
experiments_manager train examples/timeseries/mysettings_forecast.py --set model_file=model_tcn.py
experiments_manager train examples/timeseries/mysettings_forecast.py --set train_data_dir=my_series/

The model sees two years and gives the 10, 50 and 90 % quantiles of each of the next 26 weeks. It is trained on the
first 70 % of the time, watched on the next 15 %, and measured on the last.
"""

import numpy as np

from experiments_manager.data import fill_gaps, make_windows, read_series, series_of
from experiments_manager.models.losses import QuantileLoss

session_name = "forecast"
model_file = "model_nbeats.py"
train_data_dir = None  # CSV files, see `read_all`
validation_data_dir = test_data_dir = train_data_dir
hparams = {"past": 104, "horizon": 26, "filters": 32, "dropout": 0.1, "learning_rate": 0.002}
quantiles = [0.1, 0.5, 0.9]
parts = {"train": (0.0, 0.7), "validation": (0.7, 0.85), "test": (0.85, 1.0)}
columns = ["value", "sine", "cosine"]

epochs = 30
batch_size = 32
early_stopping_patience = 8
loss = QuantileLoss(quantiles)
learning_rate = hparams["learning_rate"]
embeddings = []


def dataset(split, data_dir):
    """What was measured, with the calendar, [n, 104, 3]; what came [n, 26]."""
    windows = make_windows(
        read_all(data_dir), hparams["past"], hparams["horizon"], targets=["value"], part=parts[split]
    )
    return windows.past, windows.future[..., 0]


def read_all(data_dir=None):
    """The series of a folder of CSV files with the columns `time` and `value`; gaps of up to 8 steps are filled."""
    if data_dir:
        found = read_series(data_dir, ["value"])
    else:
        from statsmodels.datasets import co2

        frame = co2.load_pandas().data.rename(columns={"co2": "value"}).rename_axis("time").reset_index()
        found = [series_of(frame, ["value"], name="co2")]
    return [with_calendar(fill_gaps(series, 8)) for series in found]


def with_calendar(series):
    """Adds the time of the year as a point on a circle, so that December is beside January; numbers have none."""
    if series.times.dtype.kind != "M":
        return series.with_columns(dict.fromkeys(["sine", "cosine"], np.zeros(len(series))))
    year = (series.times - np.datetime64("1970-01-01")) / np.timedelta64(1, "D") / 365.25 * 2 * np.pi
    return series.with_columns({"sine": np.sin(year), "cosine": np.cos(year)})
