"""A model that counts each sample which it is trained on, so that one too many or too few shows."""

import keras
import numpy as np
import tensorflow as tf

session_name = "counted"
hparams = {"places": 200_000}
epochs = 1_000_000
batch_size = 16
steps_per_epoch = 50
loss = "mean_squared_error"
learning_rate = 0.001
early_stopping_patience = None
keep_versions = 1
tensorboard = False
figures = False

consume_data_from_kafka = True
kafka_mode = "live"
kafka_topics = {"validation": None}
kafka_partition_wait = None  # so that the order follows from the content of the topic alone
kafka_idle_timeout = 6.0
checkpoint_every_steps = 7


def samples(first, last):
    number = np.arange(first, last, dtype=np.int64)
    values = np.stack([np.sin(number), np.cos(number)], 1).astype(np.float32)
    return {"number": number, "values": values}, values.sum(1, keepdims=True)


def dataset(split):
    return samples(0, 32)


class Counted(keras.Model):
    """Two weights, and a counter for each sample."""

    def __init__(self, places):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.places = places

    def build(self, shape):
        self.dense.build((None, 2))
        self.counts = self.add_weight(
            name="counts", shape=(self.places,), dtype="int32", initializer="zeros", trainable=False
        )

    def call(self, x):
        return self.dense(x["values"])

    def train_step(self, data):
        number = data[0]["number"]
        self.counts.value.scatter_add(tf.IndexedSlices(tf.ones_like(number, tf.int32), number))
        return super().train_step(data)


def model(hparams):
    return Counted(hparams["places"])
