"""Online learning: a stream whose law changes midway, and a served model that learns the new one.

    python3 tools/kafka_broker.py start
    experiments_manager kafka produce examples/streaming/mysettings_drift.py --rate 2000 --epochs 1 --split train
    experiments_manager train examples/streaming/mysettings_drift.py

`examples/streaming/watch_drift.py` does all of this at once, asks the served model meanwhile, and draws its error.
"""

import keras
import numpy as np

session_name = "drift"
hparams = {"samples": 80_000, "learning_rate": 0.01}
epochs = 1000
batch_size = 64
steps_per_epoch = 50
loss = "mean_squared_error"
learning_rate = hparams["learning_rate"]
ema_momentum = 0.95
monitor = "prequential_loss"
prequential = True

consume_data_from_kafka = True
kafka_mode = "live"
kafka_topics = {"validation": None}
kafka_idle_timeout = 10.0


def law(x, changed):
    """The target of x [n, 4] by the first law, or, where `changed` [n], by the second."""
    first, second = np.sin(2 * x[:, 0]) + x[:, 1], np.cos(2 * x[:, 0]) - x[:, 1]
    return np.where(changed, second, first)[:, None].astype("float32")


def dataset(split):
    """Samples x [n, 4], y [n, 1] in the order of time; the second half follows another law. No validation set."""
    if split != "train":
        return None
    x = np.random.default_rng(0).normal(size=(hparams["samples"], 4)).astype("float32")
    return x, law(x, np.arange(len(x)) >= len(x) // 2)


def model():
    """Two hidden layers between x and y."""
    x = keras.Input((4,), name="x")
    hidden = keras.layers.Dense(32, activation="gelu")(x)
    hidden = keras.layers.Dense(32, activation="gelu")(hidden)
    return keras.Model(x, keras.layers.Dense(1, name="y")(hidden))
