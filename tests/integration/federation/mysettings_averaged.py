"""A small regression for a federation, whose rounds are long enough to be killed in."""

import keras
import numpy as np

session_name = "averaged"
batch_size = 8
early_stopping_patience = None
figures = False
loss = "mean_squared_error"
learning_rate = 0.02
federated = {
    "clients": 4,
    "rounds": 18,
    "local_epochs": 3,
    "keep_optimizer": True,
    "strategy": "FedAdam",
    "options": {"eta": 0.02},
}


def dataset(split, partition=None, partitions=None):
    """Gives a client every fourth sample of a noisy plane."""
    generator = np.random.default_rng(1)
    x = generator.normal(size=(500, 3))
    y = x @ np.array([[1.0], [2.0], [3.0]]) + 0.1 * generator.normal(size=(500, 1))
    if split != "train":
        return x[400:], y[400:]
    x, y = x[:400], y[:400]
    return (x, y) if partition is None else (x[partition::partitions], y[partition::partitions])


def model():
    """Has dropout, so that seeds matter, and variables that are not trained."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((3,)),
            layers.Dense(16, activation="relu"),
            layers.Dropout(0.2),
            layers.BatchNormalization(),
            layers.Dense(1),
        ]
    )
