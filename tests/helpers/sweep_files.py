"""A little experiment that many trials can train, and a sweep over it, as the files that a user writes."""

import textwrap

EXPERIMENT = """
import keras
import numpy as np

hparams = {"learning_rate": 0.05, "units": 4, "crash": "no"}
epochs = 3
batch_size = 16
loss = "mse"
learning_rate = hparams["learning_rate"]
tensorboard = export = figures = False
early_stopping_patience = None
samples = 64


def dataset(split):
    x = np.random.default_rng(len(split)).normal(size=(samples, 3)).astype("float32")
    return x, np.tanh(x.sum(axis=1, keepdims=True))


def model(hparams):
    inputs = keras.Input([3], name="x")
    hidden = keras.layers.Dense(hparams["units"], activation="tanh")(inputs)
    return keras.Model(inputs, keras.layers.Dense(1, name="y")(hidden))
"""

SWEEP = """
from math import log
from hyperopt import hp

settings_file = "mysettings_{name}.py"
space = {{
    "learning_rate": hp.loguniform("learning_rate", log(1e-3), log(0.3)),
    "units": hp.quniform("units", 2, 8, 1),
}}
max_trials = 4
"""


def write_sweep_files(folder, sweep="", settings="", base=SWEEP, *, name="line"):
    """Writes the experiment and a sweep over it into a folder, with more lines in each; gives the sweep file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"mysettings_{name}.py").write_text(EXPERIMENT + textwrap.dedent(settings))
    file = folder / f"mysweep_{name}.py"
    file.write_text((base.format(name=name) if base is SWEEP else base) + textwrap.dedent(sweep))
    return file
