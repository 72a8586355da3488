"""Anomalies in a series: an auto-encoder knows what a year looks like, and draws badly what does not.

experiments_manager train examples/timeseries/mysettings_anomalies.py
experiments_manager train examples/timeseries/mysettings_anomalies.py --set train_data_dir=my_series/

The served model gives each window a score, `error`: how far it is from what the model draws, in units of the weekly
changes; and `difference`, where it is so. High scores are anomalies; which are high enough is read off a series
without any.
"""

import keras
import numpy as np
from keras import layers, ops

from experiments_manager.data import fill_gaps, make_windows, read_series, series_of

session_name = "anomalies"
train_data_dir = None  # CSV files with the columns `time` and `value`
validation_data_dir = test_data_dir = train_data_dir
hparams = {"steps": 52, "units": 128, "code": 3, "noise": 1.0, "learning_rate": 0.003}
parts = {"train": (0.0, 0.7), "validation": (0.7, 0.85), "test": (0.85, 1.0)}

epochs = 100
batch_size = 32
early_stopping_patience = 20
loss = {"difference": "mean_absolute_error", "error": None}
learning_rate = hparams["learning_rate"]
embeddings = []


def dataset(split, data_dir):
    """Windows [n, 52, 1]; what differs from them in the drawings [n, 52] should be 0."""
    windows = read_windows(split, data_dir)
    return windows, {"difference": np.zeros(windows.shape[:2], "float32")}


def read_windows(split, data_dir=None):
    """All windows that lie whole in one part of the time, float32 [n, 52, 1]; gaps of up to 8 steps are filled."""
    if data_dir:
        found = read_series(data_dir, ["value"])
    else:
        from statsmodels.datasets import co2

        frame = co2.load_pandas().data.rename(columns={"co2": "value"}).rename_axis("time").reset_index()
        found = [series_of(frame, ["value"], name="co2")]
    filled = [fill_gaps(series, 8) for series in found]
    windows = make_windows(filled, hparams["steps"] - 1, 1, targets=["value"], part=parts[split], whole=True)
    return np.concatenate([windows.past, windows.future], axis=1)


def model(hparams):
    """A window [52, 1], relative to its middle and its changes, through a code of a few numbers and back."""
    window = keras.Input((hparams["steps"], 1), name="window")
    middle = ops.mean(window, axis=1, keepdims=True)
    scale = 1e-6 + 2 * ops.median(ops.abs(window[:, 1:] - window[:, :-1]), axis=1, keepdims=True)
    seen = layers.Flatten()((window - middle) / scale)
    x = layers.GaussianNoise(hparams["noise"])(seen)
    x = layers.Dense(hparams["units"], activation="relu")(x)
    x = layers.Dense(hparams["code"], name="code")(x)
    x = layers.Dense(hparams["units"], activation="relu")(x)
    difference = layers.Subtract(name="difference")([seen, layers.Dense(hparams["steps"])(x)])
    cubic_mean = ops.mean(ops.abs(difference) ** 3, axis=1) ** (1 / 3)  # between the mean and the largest
    return keras.Model(window, {"difference": difference, "error": layers.Identity(name="error")(cubic_mean)})
