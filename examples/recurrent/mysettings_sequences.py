"""Kinds of waves, told apart by a recurrent net that reads them sample by sample from a shuffled `tf.data` pipeline.

experiments_manager train examples/recurrent/mysettings_sequences.py
"""

import keras
import numpy as np
import tensorflow as tf

session_name = "sequences"
class_names = ["sine", "square", "sawtooth"]
hparams = {"units": 16, "dropout": 0.1, "learning_rate": 0.02, "noise": 0.7}
length = 32

epochs = 25
batch_size = 40
early_stopping_patience = 4
loss = "sparse_categorical_crossentropy"
metrics = ["accuracy"]
learning_rate = hparams["learning_rate"]


def dataset(split, batch_size):
    """Waves [n, length, 1] in batches with their kind [n]; those for training come in a new order each epoch."""
    size = 1600 if split == "train" else 500
    pipeline = tf.data.Dataset.from_tensor_slices(draw_waves(size, ["train", "validation", "test"].index(split)))
    if split == "train":
        pipeline = pipeline.shuffle(10 * batch_size)  # waves are drawn in no order: more would only take longer
    return pipeline.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def draw_waves(size, seed):
    """Draws noisy waves of unknown frequency and phase, float32 [size, length, 1], and their kinds [size]."""
    generator = np.random.default_rng(seed)
    kinds = generator.integers(len(class_names), size=size)
    periods = generator.uniform(2, 4, size=(size, 1))  # in a sequence
    turns = generator.uniform(size=(size, 1)) + periods * np.linspace(0, 1, length)
    shapes = [np.sin(2 * np.pi * turns), np.sign(turns % 1 - 0.5), 2 * (turns % 1) - 1]
    waves = np.choose(kinds[:, np.newaxis], shapes) + generator.normal(scale=hparams["noise"], size=turns.shape)
    return waves[..., np.newaxis].astype("float32"), kinds


def model(hparams):
    """One layer of gated recurrent units; its last state tells the kind."""
    wave = keras.Input((length, 1), name="wave")
    state = keras.layers.GRU(hparams["units"])(wave)
    state = keras.layers.Dropout(hparams["dropout"])(state)
    return keras.Model(wave, keras.layers.Dense(len(class_names), activation="softmax", name="kind")(state))
