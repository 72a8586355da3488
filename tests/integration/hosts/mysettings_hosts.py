"""A small experiment that several processes may train."""

import json
import os
import time

import keras
import numpy as np

session_name = "hosts"
hparams = {"samples": 240, "pause": 0.0, "unreadable_at": -1}
epochs = 4
batch_size = 24
loss = "mean_squared_error"
learning_rate = 0.05
metrics = ["mae"]
strategy = "MultiWorkerMirroredStrategy"
checkpoint_every_steps = 7
keep_checkpoints = 3
early_stopping_patience = None
tensorboard = False


def dataset(split):
    if json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {}).get("index") == hparams["unreadable_at"]:
        raise OSError("the local disk of this host is empty")
    random = np.random.default_rng(0 if split == "train" else 1)
    x = random.normal(size=(hparams["samples"], 3)).astype("float32")
    return x, (x[:, :1] * 2 + x[:, 1:2] ** 2).astype("float32")


def model(hparams):
    inputs = keras.Input((3,), name="x")
    hidden = keras.layers.Dense(16, activation="relu")(inputs)
    return keras.Model(inputs, keras.layers.Dense(1, name="y")(hidden))


class Slow(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        time.sleep(hparams["pause"])


def callbacks():
    return [Slow()]
