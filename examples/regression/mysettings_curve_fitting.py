"""Noisy curve regression, the smallest complete experiment.

experiments_manager train examples/regression/mysettings_curve_fitting.py
"""

import keras
import numpy as np

session_name = "curve_fitting"
hparams = {"hidden_units": 10, "learning_rate": 0.05, "noise": 0.1}
epochs = 50
batch_size = 100
loss = "mean_squared_error"
learning_rate = hparams["learning_rate"]


def dataset(split):
    """Draws 1,000 points of a noisy curve, x and y of shape [1000, 1], always the same ones for the same split."""
    generator = np.random.default_rng(["train", "validation", "test"].index(split))
    x = generator.uniform(-5, 5, size=(1000, 1)).astype("float32")
    y = (np.sin(x) + x) / 2 + generator.normal(scale=hparams["noise"], size=x.shape).astype("float32")
    return x, y


def model(hparams):
    """One hidden layer between x and y."""
    x = keras.Input((1,), name="x")
    hidden = keras.layers.Dense(hparams["hidden_units"], activation="gelu")(x)
    return keras.Model(x, keras.layers.Dense(1, name="y")(hidden))
