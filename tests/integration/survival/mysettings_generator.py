"""A Python generator of unknown length that draws from NumPy's and Python's global generators."""

import random

import keras
import numpy as np
import tensorflow as tf

session_name = "generator"
epochs = 5
batch_size = 10
loss = "mse"
learning_rate = 0.01
checkpoint_every_steps = 31
figures = False


def dataset(split, batch_size):
    def samples():
        for _ in range(1000 if split == "train" else 200):
            x = np.random.normal(size=5).astype("float32")
            yield x, np.float32([x.sum() * random.choice([0.9, 1.0, 1.1])])

    signature = (tf.TensorSpec([5], tf.float32), tf.TensorSpec([1], tf.float32))
    return tf.data.Dataset.from_generator(samples, output_signature=signature).batch(batch_size)


def model():
    layers = keras.layers
    return keras.Sequential(
        [keras.Input([5]), layers.Dense(16, activation="relu"), layers.Dropout(0.1), layers.Dense(1)]
    )
