"""A curve of which each client sees one interval; the global model learns all of it.

The model is local, as splines are: a client that sees one interval hardly changes what the model says of the others. A
multi-layer perceptron forgets the other intervals within each round, and no tuning mends that.

experiments_manager train examples/federated/mysettings_curve_fitting.py
experiments_manager federate simulate examples/federated/mysettings_curve_fitting.py --clients 5 --rounds 20
"""

import keras
import numpy as np

from experiments_manager.data import client_share

session_name = "federated_curve"
hparams = {"bumps": 20, "learning_rate": 0.2, "noise": 0.1}
epochs = 20
batch_size = 10
loss = "mean_squared_error"
learning_rate = hparams["learning_rate"]
optimizer = "sgd"
federated = {
    "strategy": "FedAvgM",  # a bump is moved by one client or two, of whose steps the mean leaves only a part
    "options": {"server_learning_rate": 2.0},
    "rounds": 20,
    "local_epochs": 1,
}


def dataset(split, hparams, partition=None, partitions=None):
    """Draws 1,000 points of a noisy curve, x and y [1000, 1]; of the training points a client has one interval of x."""
    generator = np.random.default_rng(["train", "validation", "test"].index(split))
    x = generator.uniform(-5, 5, size=(1000, 1)).astype("float32")
    y = (np.sin(x) + x) / 2 + generator.normal(scale=hparams["noise"], size=x.shape).astype("float32")
    client = partition if split == "train" else None
    return client_share((x, y), client, partitions, by="column", column=x)


def model(hparams):
    """A weighted sum of Gaussian bumps, evenly spaced over x."""
    x = keras.Input((1,), name="x")
    centres = np.linspace(-5, 5, hparams["bumps"], dtype="float32")
    bumps = keras.ops.exp(-keras.ops.square(x - centres))
    return keras.Model(x, keras.layers.Dense(1, kernel_initializer="zeros", name="y")(bumps))
