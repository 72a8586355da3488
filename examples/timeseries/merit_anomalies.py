"""How well anomalies are found.

python examples/figures_of_merit.py examples/timeseries/merit_anomalies.py
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from exported import ask
from sklearn.metrics import roc_auc_score

from experiments_manager import load_settings

SETTINGS = Path(__file__).with_name("mysettings_anomalies.py")
PICTURE = "timeseries_anomalies.png"


def merit(run_dir):
    """The area under the ROC curve for test windows of which half are disturbed, and that of a simple score."""
    windows, kinds = disturbed_windows()
    simple = np.abs(np.diff(windows[..., 0], axis=1))
    return {
        "ROC AUC of the error": roc_auc_score(kinds > 0, scores(run_dir, windows)),
        "ROC AUC of the largest jump": roc_auc_score(kinds > 0, simple.max(axis=1) / np.median(simple, axis=1)),
    }


def disturbed_windows(seed=0):
    """Test windows [n, steps, 1] twice: as they are (0), and with a spike (1), a shift (2) or a dead sensor (3)."""
    clean = load_settings(SETTINGS).experiment_settings.read_windows("test")
    generator = np.random.default_rng(seed)
    disturbed, kinds = clean.copy(), generator.integers(1, 4, size=len(clean))
    size = np.median(np.abs(np.diff(clean, axis=1)))
    for window, kind in zip(disturbed[..., 0], kinds, strict=True):
        start, sign = generator.integers(3, len(window) - 8), generator.choice([-1, 1])
        if kind == 1:
            window[start] += 5 * sign * size
        elif kind == 2:
            window[start:] += 4 * sign * size
        else:
            window[start : start + 8] = window[start]
    return np.concatenate([clean, disturbed]), np.concatenate([np.zeros(len(clean), int), kinds])


def scores(run_dir, windows):
    """The served model's score of each window [n]."""
    return ask(run_dir, window=windows)["error"]


def draw(run_dir, file):
    """Draws how the scores of clean and of disturbed windows are spread."""
    windows, kinds = disturbed_windows()
    found = scores(run_dir, windows)
    figure, axes = plt.subplots(figsize=(6, 3))
    bins = np.linspace(0, np.quantile(found, 0.99), 40)
    for kind, name in enumerate(("clean", "spike", "shift", "dead sensor")):
        axes.hist(found[kinds == kind], bins, density=True, histtype="step", label=name, lw=1.5)
    axes.set(xlabel="score", yticks=[])
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=90)
