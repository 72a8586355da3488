"""Handwritten digits of which each client has its own mixture, or its own rotation.

experiments_manager train examples/federated/mysettings_digits.py
experiments_manager federate simulate examples/federated/mysettings_digits.py --clients 10 --rounds 20
"""

import keras
import numpy as np
from sklearn.datasets import load_digits

from experiments_manager.data import client_share

session_name = "federated_digits"
class_names = [str(digit) for digit in range(10)]
hparams = {
    "hidden_units": 128,
    "learning_rate": 0.01,
    "alpha": 0.5,  # small: each client has few digits; large: all have the same mixture
    "rotations": 1,  # 2: the second half of the clients sees the digits turned by 90 degrees
}
epochs = 20
batch_size = 16
loss = "sparse_categorical_crossentropy"
metrics = ["accuracy"]
learning_rate = hparams["learning_rate"]
federated = {"strategy": "FedProx", "options": {"proximal_mu": 0.01}, "rounds": 20, "local_epochs": 5}


def rotation(client, clients, hparams):
    """Quarter turns of the digits of a client: the group that a clustered strategy should find it in."""
    return client * hparams["rotations"] // clients


def dataset(split, hparams, partition=None, partitions=None):
    """Images [n, 8, 8, 1] in 0..1 and digits [n]; a client has its share of the training images."""
    digits = load_digits()
    images = (digits.images[..., None] / 16).astype("float32")
    order = np.random.default_rng(0).permutation(len(images))
    rows = dict(zip(("train", "validation", "test"), np.split(order, [1257, 1437]), strict=True))[split]
    images, labels = images[rows], digits.target[rows]
    if split != "train" or partition is None:
        return images, labels
    images, labels = client_share(
        (images, labels),
        partition,
        partitions,
        by="dirichlet",
        labels=labels,
        alpha=hparams["alpha"],
        min_samples=10,
    )
    return np.rot90(images, rotation(partition, partitions, hparams), axes=(1, 2)), labels


def model(hparams):
    """Images [n, 8, 8, 1] to the probabilities of the ten digits [n, 10]."""
    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Flatten()(image)
    x = keras.layers.Dense(hparams["hidden_units"], activation="relu")(x)
    return keras.Model(image, keras.layers.Dense(10, activation="softmax", name="digit")(x))
