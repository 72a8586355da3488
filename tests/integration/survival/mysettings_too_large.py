"""A model that asks for more memory than any machine has, in its fourth step."""

import keras
import numpy as np
import tensorflow as tf

session_name = "too_large"
epochs = 2
batch_size = 8
loss = "mse"
learning_rate = 0.05
export = False


def dataset(split):
    x = np.random.default_rng(["train", "validation", "test"].index(split)).normal(size=(40, 3)).astype("float32")
    return x, np.tanh(x.sum(axis=1, keepdims=True))


class Large(keras.Sequential):
    def train_step(self, data):
        count = tf.where(self.optimizer.iterations >= 3, tf.constant(10**15, tf.int64), 1)
        logs = super().train_step(data)
        return logs | {"waste": tf.reduce_sum(tf.fill([count], logs["loss"]))}


def model():
    return Large([keras.Input([3]), keras.layers.Dense(1)])
