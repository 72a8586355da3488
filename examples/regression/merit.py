"""How near the curve the model comes.

python examples/figures_of_merit.py examples/regression/merit.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from exported import ask

import experiments_manager

SETTINGS = Path(__file__).with_name("mysettings_curve_fitting.py")
PICTURE = "regression.png"


def merit(run_dir):
    """The mean squared error on validation data, of which the noise alone is 0.01."""
    return {"mean squared error": experiments_manager.evaluate(run_dir, "validation")["loss"]}


def draw(run_dir, file):
    """Draws the validation points, the curve without its noise, and what the model says."""
    x, y = experiments_manager.load_settings(SETTINGS).call("dataset", split="validation")
    line = np.linspace(-5, 5, 200, dtype="float32")[:, np.newaxis]
    figure, axes = plt.subplots(figsize=(6, 3))
    axes.plot(x, y, ".", ms=2, color="0.6", label="validation")
    axes.plot(line, (np.sin(line) + line) / 2, color="black", lw=1, label="curve")
    axes.plot(line, ask(run_dir, x=line)["y"], color="C0", lw=1.5, label="model")
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=90)
