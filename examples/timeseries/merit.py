"""How good the forecasts are, beside the naive ones.

python examples/figures_of_merit.py examples/timeseries/merit.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from exported import ask

from experiments_manager import load_settings
from experiments_manager.data import make_windows, seasonal_naive

SETTINGS = Path(__file__).with_name("mysettings_forecast.py")
PICTURE = "timeseries.png"
VARIANTS = {"by N-BEATS": {}, "by a TCN": {"model_file": "model_tcn.py"}}
SEASON = 52


def merit(run_dir):
    """Mean absolute errors on the last part of the time, in parts per million, and how often the interval is right."""
    windows, quantiles = forecasts(run_dir)
    came, measured = windows.future[..., 0], ~windows.filled[..., 0]
    inside = (quantiles[..., 0] <= came) & (came <= quantiles[..., 2])
    return {
        "error of the median (ppm)": np.abs(quantiles[..., 1] - came)[measured].mean(),
        "error of the naive forecast": np.abs(seasonal_naive(windows, 1) - came)[measured].mean(),
        "error of the seasonal-naive forecast": np.abs(seasonal_naive(windows, SEASON) - came)[measured].mean(),
        "share inside the 80 % interval": inside[measured].mean(),
    }


def forecasts(run_dir):
    """The test windows, and the quantiles that the exported model gives for them [n, horizon, 3]."""
    settings = load_settings(SETTINGS)
    hparams, module = settings.hparams, settings.experiment_settings
    windows = make_windows(
        module.read_all(), hparams["past"], hparams["horizon"], targets=["value"], part=module.parts["test"]
    )
    return windows, ask(run_dir, past=windows.past)["quantiles"]


def draw(run_dir, file):
    """Draws every half a year's forecast, one after the other, and what came."""
    windows, quantiles = forecasts(run_dir)
    figure, axes = plt.subplots(figsize=(9, 3.2))
    for number in range(0, len(windows), windows.future.shape[1]):
        steps = windows.starts[number] + np.arange(windows.future.shape[1])
        axes.fill_between(steps, quantiles[number, :, 0], quantiles[number, :, 2], color="C0", alpha=0.3, lw=0)
        axes.plot(steps, quantiles[number, :, 1], color="C0", lw=1)
        axes.plot(steps, windows.future[number, :, 0], color="black", lw=0.8)
    axes.set(xlabel="week", ylabel="carbon dioxide (ppm)", title="test: what came (black), median and 80 % interval")
    figure.tight_layout()
    figure.savefig(file, dpi=90)
